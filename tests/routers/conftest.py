"""Each generation's fake in turn, with bare requests to it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.routers import FakeG1, FakeG2, FakeG3, FakeG4
from tests.routers.asking import Asking
from tests.routers.models import FakeRouter

ALL = (FakeG1, FakeG2, FakeG3, FakeG4)


@pytest.fixture(params=ALL, ids=lambda each: each.generation)
def ask(request: pytest.FixtureRequest) -> Iterator[Asking]:
    """Each generation in turn."""
    yield from _open(request.param())


@pytest.fixture(params=[FakeG1, FakeG2], ids=lambda each: each.generation)
def nodes(request: pytest.FixtureRequest) -> Iterator[Asking]:
    """The two with nodes."""
    yield from _open(request.param())


@pytest.fixture(params=[FakeG3, FakeG4], ids=lambda each: each.generation)
def endpoints(request: pytest.FixtureRequest) -> Iterator[Asking]:
    """The two with endpoints."""
    yield from _open(request.param())


@pytest.fixture
def g4() -> Iterator[Asking]:
    """The newest."""
    yield from _open(FakeG4())


def _open(router: FakeRouter) -> Iterator[Asking]:
    with router:
        asking = Asking(router)
        yield asking
        asking.http.close()
