"""The library as it comes: its own client, whatever the modules tested before have made it use."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from huggingface_hub.utils import _http, set_client_factory


@pytest.fixture(autouse=True)
def the_librarys_own_client() -> Iterator[None]:
    ours = _http._GLOBAL_CLIENT_FACTORY
    set_client_factory(_http.default_client_factory)
    yield
    set_client_factory(ours)
