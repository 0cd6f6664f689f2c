"""A router and an empty hub, each on its own port of this machine."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.hub import LoopbackHub
from tests.node.stub_router import StubRouter


@pytest.fixture
def router() -> Iterator[StubRouter]:
    with StubRouter() as running:
        yield running


@pytest.fixture
def empty_hub() -> Iterator[LoopbackHub]:
    with LoopbackHub() as running:
        yield running
