"""Where a hub leads, by real addresses: in a network where public and private ones are all this machine's."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import HfApi

from modelhub_tui import hub_http
from tests.hub.hostile import Asked, HostileHub, head

MAY = {
    "public": {"public"},
    "private": {"public", "private"},
    "loopback": {"public", "private", "loopback"},
    "link": {"public", "private", "link"},
}
ROOT = Path(__file__).parents[2]


def _may_isolate() -> bool:
    if shutil.which("unshare") is None or shutil.which("ip") is None:
        return False
    return subprocess.run(["unshare", "-n", "true"], check=False, capture_output=True).returncode == 0


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    if not _may_isolate():
        pytest.skip("needs the right to make a network namespace, and the commands unshare and ip")
    home = tmp_path_factory.mktemp("home")
    env = {**os.environ, "HOME": str(home), "HF_HOME": str(home), "PYTHONPATH": str(ROOT)}
    command = ["unshare", "-n", sys.executable, "-m", "tests.hub.internet"]
    done = subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    told: list[dict[str, Any]] = json.loads(done.stdout)
    return told


@pytest.mark.parametrize("way", ["api", "content", "signed", "route", "storage"])
@pytest.mark.parametrize("hub", MAY)
def test_a_hub_leads_only_to_where_it_may(found: list[dict[str, Any]], hub: str, way: str) -> None:
    cases = [each for each in found if each.get("hub") == hub and each["way"] == way]
    assert {each["target"] for each in cases} == {"public", "private", "loopback", "link"}
    for case in cases:
        assert bool(case["asked"]) == (case["target"] in MAY[hub]), case
        assert not case["token"], case
        if case["target"] not in MAY[hub]:
            assert " leads to " in case["error"] and "may not do that" in case["error"], case


def test_a_name_that_moves_into_our_network_is_not_followed(found: list[dict[str, Any]]) -> None:
    cases = [each for each in found if each["way"].startswith("moved")]
    assert len(cases) == 3
    for case in cases:
        assert (case["before"], case["first"], case["asked"]) == ("", 1, 0), case
        assert "leads to" in case["error"], case


def test_no_token_follows_to_another_origin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secretsecret")
    page = json.dumps([{"type": "file", "path": "a", "oid": "b" * 40, "size": 1}]).encode()
    with HostileHub(lambda _: [head(Content_Length=len(page)), page]) as other:

        def send(asked: Asked) -> list[bytes]:
            if "tree" in asked.path:
                return [head(Content_Length=len(page), Link=f'<{other.url}/next>; rel="next"'), page]
            return [head(307, Location=f"{other.url}/api", Content_Length=0)]

        with HostileHub(send) as hub, hub_http.asking(hub.url):
            api = HfApi(endpoint=hub.url)
            assert len(list(api.list_repo_tree("acme/x"))) == 2
            with pytest.raises(TypeError):
                api.model_info("acme/x")
        assert [each.path for each in other.asked] == ["/next", "/api"]
        assert not any("authorization" in each.headers for each in other.asked)
        assert all(each.headers["authorization"] == "Bearer hf_secretsecret" for each in hub.asked)
