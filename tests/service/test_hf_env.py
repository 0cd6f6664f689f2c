"""Variables of the HuggingFace library that it fails on, and members of the hub's answers that nobody needs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from modelhub_tui.hf_env import token_trouble
from tests.hub import DROP, HubRepo, LoopbackHub
from tests.hub.blobs import pointer

BROKEN = {
    "HF_HUB_ETAG_TIMEOUT": "10s",
    "HF_HUB_DOWNLOAD_TIMEOUT": "",
}


def modelhub(tmp_path: Path, hub: LoopbackHub, *argv: str, **more: str) -> subprocess.CompletedProcess[str]:
    env = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("MODELHUB_", "HF_"))},
        **hub.env(),
        "HOME": str(tmp_path),
        "HF_HOME": str(tmp_path / "hf"),
        "MODELHUB_STATE_DIR": str(tmp_path / "state"),
        "MODELHUB_CACHE_DIR": str(tmp_path / "cache"),
        **more,
    }
    return subprocess.run(
        [sys.executable, "-m", "modelhub_tui", *argv],
        env=env,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        stdin=subprocess.DEVNULL,
    )


@pytest.mark.parametrize("name", BROKEN)
@pytest.mark.parametrize("argv", [("pull", "acme/One-GGUF"), ("serve",), ("doctor",)], ids=lambda argv: argv[0])
def test_a_broken_variable_is_named_in_one_sentence(
    tmp_path: Path, hub: LoopbackHub, name: str, argv: tuple[str, ...]
) -> None:
    told = modelhub(tmp_path, hub, *argv, **{name: BROKEN[name]})
    said = told.stdout + told.stderr
    assert told.returncode != 0
    assert f"{name} is " in said and "not a whole number of seconds" in said
    assert "Traceback" not in said and "Internal" not in said


def test_an_unreadable_token_file_is_named_by_register_and_doctor(tmp_path: Path, hub: LoopbackHub) -> None:
    (tmp_path / "hf" / "token").mkdir(parents=True)
    try:
        for argv in (("pull", "acme/One-GGUF"), ("doctor",)):
            told = modelhub(tmp_path, hub, *argv)
            said = " ".join((told.stdout + told.stderr).split())
            assert told.returncode != 0 and "HF_TOKEN_PATH" in said and "cannot be read" in said, said
            assert "Internal" not in said
    finally:
        modelhub(tmp_path, hub, "stop")


def test_a_good_token_file_is_no_trouble(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("hf_abc\n")
    assert token_trouble({"HF_HOME": str(tmp_path)}) == ""
    assert "HF_TOKEN_PATH" in token_trouble({"HF_TOKEN_PATH": str(tmp_path)})
    assert token_trouble({"HF_TOKEN_PATH": str(tmp_path), "HF_TOKEN": "hf_abc"}) == ""


DECORATIONS: tuple[dict[str, Any], ...] = (
    {"lastModified": "2026-02-03T04:05:06Z", "createdAt": 5},
    {"lastModified": "yesterday"},
    {"createdAt": ["x"]},
    {"safetensors": {"parameters": {"F32": 5}}},
    {"safetensors": "many"},
    {"safetensors": {"total": "x"}},
    {"gguf": {"total": -1, "context_length": "x", "chat_template": 7}},
    {"gguf": "x"},
    {"cardData": {"license": {"a": 1}, "eval_results": 7, "model-index": "x"}},
    {"cardData": 5, "config": 5, "spaces": 5, "widgetData": 5},
    {"transformersInfo": {"nonsense": 1}},
    {"transformersInfo": "x"},
    {"evalResults": 5},
    {"evalResults": [{"x": 1}]},
    {"inferenceProviderMapping": "x"},
    {"inferenceProviderMapping": {"x": 5}},
    {"siblings.*.lfs": DROP},
    {"siblings.*.lfs.pointerSize": DROP},
    {"siblings.*.lfs": "x"},
    {"siblings.*.size": "x", "siblings.*.blobId": 5},
    {"tags": 5, "pipeline_tag": 5, "likes": "x"},
    {"self": 1, "kwargs": 2, "last_modified": 3},
)


@pytest.mark.parametrize("told", DECORATIONS, ids=lambda told: "+".join(told))
def test_a_decoration_stops_no_registration(hub: LoopbackHub, told: dict[str, Any]) -> None:
    from modelhub_tui.service.router.hub import Hub

    rule = hub.fault(path="/api/models/acme/One-GGUF*", json=told, times=None)
    try:
        facts = Hub(hub.url).facts("acme/One-GGUF", None)
    finally:
        rule.remove()
    assert rule.hits and facts.repo == "acme/One-GGUF"
    assert "one.Q8_0.gguf" in [each.path for each in facts.files]


@pytest.mark.parametrize(("status", "times"), [(408, 2), (418, 2), (425, 2), (451, 2), (499, 2), (502, 2)])
def test_an_answer_that_is_an_accident_is_asked_for_again(hub: LoopbackHub, status: int, times: int) -> None:
    from modelhub_tui.service.router.hub import Hub

    rule = hub.fault(path="/api/models/acme/One-GGUF*", status=status, times=times)
    assert Hub(hub.url, sleep=lambda _: None).facts("acme/One-GGUF", None).repo == "acme/One-GGUF"
    assert rule.hits == times


@pytest.mark.parametrize(
    ("status", "code", "words"),
    [
        (400, "hub_failed", "refuses the request (HTTP 400)"),
        (404, "no_such_repo", "does not know"),
        (405, "hub_failed", "HTTP 405"),
        (410, "no_such_file", "gone for good"),
        (418, "hub_failed", "HTTP 418"),
        (451, "disabled", "legal reasons"),
        (499, "hub_failed", "499"),
        (503, "hub_failed", "error 503"),
    ],
)
def test_each_status_of_the_api_is_called_what_it_is(hub: LoopbackHub, status: int, code: str, words: str) -> None:
    from modelhub_tui.service.router.errors import Refused
    from modelhub_tui.service.router.hub import Hub

    rule = hub.fault(path="/api/models/acme/One-GGUF*", status=status, times=None)
    try:
        with pytest.raises(Refused) as refused:
            Hub(hub.url, sleep=lambda _: None).facts("acme/One-GGUF", None)
    finally:
        rule.remove()
    assert refused.value.code == code and words in refused.value.reason


@pytest.mark.parametrize("path", ["m.gguf", "model.safetensors"])
@pytest.mark.parametrize("content", [b"", pointer("0" * 64, 10**9)], ids=["empty", "pointer"])
def test_weights_that_cannot_be_are_refused_at_registration(hub: LoopbackHub, path: str, content: bytes) -> None:
    from modelhub_tui.service.router.artefact import choose
    from modelhub_tui.service.router.errors import Refused
    from modelhub_tui.service.router.hub import Hub

    repo = hub.add(HubRepo(f"acme/bad-{len(content)}-{path[0]}", {path: content}, lfs_suffixes=()))
    with pytest.raises(Refused, match="no model: the repo may hold a git-lfs pointer") as refused:
        choose(Hub(hub.url).facts(repo.id, None).files, path)
    assert refused.value.code == "unsupported"
