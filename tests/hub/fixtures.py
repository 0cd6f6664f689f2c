"""Pytest fixtures; `tests/conftest.py` makes them known everywhere."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.hub.content import standard_repos
from tests.hub.server import LoopbackHub


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackHub]:
    """A running hub with `standard_repos()`, set as HF_ENDPOINT for child processes. Made anew for each test."""
    with LoopbackHub(standard_repos()) as running:
        for name, value in running.env().items():
            monkeypatch.setenv(name, value)
        yield running
