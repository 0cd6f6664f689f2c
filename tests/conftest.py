"""What every test gets: a home of its own, no network but loopback, a fixed locale and time zone."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from tests.hub.fixtures import hub  # noqa: F401

# Read when Textual is imported, so they are settled before any test module is.
for name in [*os.environ]:
    if name.startswith("TEXTUAL_SNAPSHOT"):
        continue  # the folder in which the picture tests gather their report
    if name.startswith(("TEXTUAL", "MODELHUB_", "HF_", "HUGGING_FACE", "XDG_")) or name in (
        "NO_COLOR",
        "FORCE_COLOR",
        "COLORTERM",
    ):
        del os.environ[name]
os.environ.update(
    LC_ALL="C.UTF-8",
    TZ="UTC",
    HF_HUB_DISABLE_TELEMETRY="1",
    NO_PROXY="127.0.0.1,localhost,::1",
    no_proxy="127.0.0.1,localhost,::1",
)
time.tzset()
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # So a shell starts what it runs in the background, and the programs under test would inherit it.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _own_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep the machine's own home, caches and services out of every test."""
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("HF_HOME", str(home / "hf"))
    monkeypatch.setenv("MODELHUB_STATE_DIR", str(home / "state"))
    monkeypatch.setenv("MODELHUB_CACHE_DIR", str(home / "cache"))
    # A hub nobody listens at: a test that forgets its own never reaches the internet.
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    return home
