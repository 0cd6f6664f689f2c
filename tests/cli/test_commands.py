"""Each subcommand: what it asks the router, what it prints where, and the exit code."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from modelhub_tui.away import while_away
from modelhub_tui.catalog import catalog_path
from modelhub_tui.cli.connect import connector
from modelhub_tui.client.base import RegisterRequest
from modelhub_tui.config import Settings, load_settings
from modelhub_tui.domain import (
    Connection,
    Fleet,
    Link,
    Node,
    NodeStatus,
    Phase,
    Placement,
    RouterInfo,
    RouterReport,
    Transfer,
)
from modelhub_tui.errors import (
    AlreadyRegistered,
    Forbidden,
    NotARouter,
    Rejected,
    RouterFault,
    ServiceFailed,
    Unauthorised,
    Unreachable,
)
from modelhub_tui.snapshot import fleet_path, load_fleet, save_fleet
from modelhub_tui.states import join_models
from tests.cli.conftest import CommandLine, Connect, ScriptedClient
from tests.client.fakes import ENTRY, NODE, OTHER, told

PLACED = told(placements=(Placement("gpu-01", "/m/tiny-Q4.gguf", ("/m/tiny-Q4.gguf",), 1000),))
FETCHING = told(transfers=(Transfer("gpu-01", Phase.FETCHING, 400, 1000, 50.0, 12.0, "tiny-Q4.gguf", 1, 1),))
FAILED = told(transfers=(Transfer("gpu-01", Phase.FAILED, 400, 1000, error="The disk of gpu-01 is full."),))
STRANGER = told(name="zed/model-gguf", repo="Zed/Model-GGUF", file="m.gguf")

LIST_KEYS = {
    "id", "name", "title", "repo", "files", "state", "size_bytes", "required_memory_bytes", "tags", "downloads",
    "likes", "progress", "placements",
}  # fmt: skip


PAUSED = told(transfers=(Transfer("gpu-01", Phase.PAUSED, 400, 1000, error="Needs 600 B, free 0 B."),))


# -- list, local ------------------------------------------------------------------------------------------------------


def test_list_prints_a_plain_table(modelhub: CommandLine) -> None:
    modelhub.client.say(FETCHING, STRANGER)
    result = modelhub("list")
    assert result.code == 0 and result.err == ""
    assert [line.split()[:3] for line in result.out.splitlines()] == [
        ["STATE", "NAME", "SIZE"],
        ["downloading", "40%", "tiny"],
        ["available", "other", "2"],
        ["queued", "zed/model-gguf", "Model-GGUF"],
    ]
    assert "\x1b" not in result.out
    assert modelhub.client.closed


def test_in_a_narrow_terminal_state_and_name_stay(modelhub: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    modelhub.client.say(FETCHING)
    monkeypatch.setattr("modelhub_tui.cli.output._is_tty", lambda _: True)
    monkeypatch.setenv("COLUMNS", "26")
    monkeypatch.setenv("NO_COLOR", "1")
    assert [line.split() for line in modelhub("list").out.splitlines()] == [
        ["STATE", "NAME"],
        ["downloading", "40%", "tiny"],
        ["available", "other"],
    ]


@pytest.mark.parametrize(("columns", "bar"), [("40", False), ("100", True)])
def test_the_bar_leaves_room_for_the_figures(
    modelhub: CommandLine, monkeypatch: pytest.MonkeyPatch, columns: str, bar: bool
) -> None:
    modelhub.client.then((FETCHING,), (PLACED,))
    monkeypatch.setattr("modelhub_tui.cli.output._is_tty", lambda _: True)
    monkeypatch.setenv("COLUMNS", columns)
    said = modelhub("pull", "tiny").err
    assert "40%" in said and any(each in said for each in "━#") is bar


def test_list_json_has_the_documented_shape(modelhub: CommandLine) -> None:
    modelhub.client.say(FETCHING, STRANGER)
    tiny, other, zed = modelhub("list", "--json").json
    assert tiny.keys() >= LIST_KEYS
    assert (tiny["id"], tiny["name"], tiny["state"]) == ("tiny", "acme/tiny-gguf", "downloading")
    assert tiny["files"] == ["tiny-Q4.gguf"] and tiny["size_bytes"] == 1000
    assert tiny["progress"].items() >= {
        "bytes_done": 400, "bytes_total": 1000, "bytes_per_s": 50, "eta_s": 12.0, "phase": "fetching", "error": None,
    }.items()  # fmt: skip
    assert (other["state"], other["progress"], other["downloads"]) == ("available", None, None)
    assert (zed["id"], zed["state"], zed["reason"]) == (None, "queued", "waiting for gpu-01")


def test_list_narrows(modelhub: CommandLine) -> None:
    modelhub.client.say(PLACED, nodes=(replace(NODE, ram_bytes=10),))
    assert [each["id"] for each in modelhub("list", "--search", "OTH", "--json").json] == ["other"]
    assert [each["id"] for each in modelhub("list", "--status", "downloaded", "--json").json] == ["tiny"]
    assert modelhub("list", "--fits", "--json").json == []
    result = modelhub("list", "--search", "nothing like it")
    assert (result.code, result.out, result.err) == (0, "", "No model matches.\n")
    assert modelhub("list", "--status", "flying").code == 2


def test_list_prints_the_catalog_if_no_service_starts(modelhub: CommandLine) -> None:
    modelhub.problem = ServiceFailed("The port is taken.")
    result = modelhub("list", "--json")
    assert result.code == 0
    assert [each["state"] for each in result.json] == ["available", "available"]
    assert "The port is taken." in result.err


@pytest.mark.parametrize(("verified", "said"), [(True, False), (None, False), (False, True)])
def test_what_cannot_be_verified_is_said(modelhub: CommandLine, verified: bool | None, said: bool) -> None:
    paths = ("/m/tiny-Q4.gguf", "/m/config.json")
    bare = paths[1:] if said else ()
    place = Placement("gpu-01", paths[0], paths, 1000, verified=verified, unverified=bare)
    modelhub.client.say(told(placements=(place,)))
    for command in ("local", "list"):
        (shown,) = next(each for each in modelhub(command, "--json").json if each["placements"])["placements"]
        assert (shown["verified"], shown["unverified"]) == (verified, list(bare))
    result = modelhub("local")
    assert ("not verifiable" in result.out, "1 of them cannot be verified" in result.err) == (said, said)
    result = modelhub("pull", "tiny")
    assert ("cannot be verified" in result.err) == said
    assert "erified" not in result.out.replace("cannot be verified", "")


def test_local_lists_only_what_is_on_disk(modelhub: CommandLine) -> None:
    modelhub.client.say(PLACED, STRANGER)
    (tiny,) = modelhub("local", "--json").json
    assert tiny.keys() >= LIST_KEYS | {"path", "paths", "disk_bytes"}
    assert (tiny["path"], tiny["paths"], tiny["disk_bytes"]) == ("/m/tiny-Q4.gguf", ["/m/tiny-Q4.gguf"], 1000)
    result = modelhub("local")
    assert result.out.splitlines()[1].split() == ["tiny", "1", "kB", "gpu-01", "/m/tiny-Q4.gguf"]
    modelhub.client.say(STRANGER)
    assert modelhub("local", "--json").json == []
    result = modelhub("local")
    assert (result.code, result.out) == (0, "") and "modelhub pull" in result.err


# -- pull -------------------------------------------------------------------------------------------------------------


def test_pull_waits_and_prints_the_path(modelhub: CommandLine) -> None:
    modelhub.client.then((told(),), (FETCHING,), (PLACED,))
    result = modelhub("pull", "TINY")
    assert (result.code, result.out) == (0, "/m/tiny-Q4.gguf\n")
    assert "400 B of 1 kB" in result.err and "tiny is downloaded, 1 kB." in result.err
    assert "\r" not in result.err and "\x1b" not in result.err
    sent = RegisterRequest("Acme/Tiny-GGUF", "tiny-Q4.gguf", "abc", "Tiny Instruct")
    assert modelhub.client.asked("register") == [("register", sent)]
    assert modelhub.client.closed


def test_pull_json_is_a_line_for_each_step(modelhub: CommandLine) -> None:
    modelhub.client.then((told(),), (FETCHING,), (PLACED,))
    result = modelhub("pull", "tiny", "--json")
    assert (result.code, result.err) == (0, "")
    states = [each["state"] for each in result.json_lines]
    assert states[-2:] == ["downloading", "downloaded"] and states[0] == "queued"
    assert result.json_lines[-2]["progress"]["bytes_done"] == 400
    assert result.json_lines[-1]["path"] == "/m/tiny-Q4.gguf"


def test_a_failed_pull_says_why(modelhub: CommandLine) -> None:
    modelhub.client.then((told(),), (FETCHING,), (FAILED,))
    result = modelhub("pull", "tiny")
    assert (result.code, result.out) == (1, "")
    assert "tiny failed: The disk of gpu-01 is full." in result.err


def test_pulling_what_failed_tries_again(modelhub: CommandLine) -> None:
    modelhub.client.say(FAILED)
    modelhub.client.then((FETCHING,), (PLACED,))
    result = modelhub("pull", "tiny")
    assert result.code == 0
    assert modelhub.client.asked("retry", "register") == [("retry", "acme/tiny-gguf")]


def test_pulling_what_is_here_asks_for_nothing(modelhub: CommandLine) -> None:
    modelhub.client.say(PLACED)
    result = modelhub("pull", "tiny")
    assert (result.code, result.out) == (0, "/m/tiny-Q4.gguf\n")
    assert modelhub.client.asked("register", "retry") == []


def test_pull_of_another_repo_registers_it(modelhub: CommandLine) -> None:
    done = replace(STRANGER, placements=(Placement("gpu-01", "/m/m.gguf", ("/m/m.gguf",), 5),))
    modelhub.client.then((STRANGER,), (done,))
    result = modelhub("pull", "https://evil.example/Zed/Model-GGUF")
    assert result.code == 2 and "set HF_ENDPOINT to use it" in result.err
    result = modelhub("pull", "https://huggingface.co/Zed/Model-GGUF/blob/main/m.gguf")
    assert (result.code, result.out) == (0, "/m/m.gguf\n")
    assert modelhub.client.asked("register") == [("register", RegisterRequest("Zed/Model-GGUF", "m.gguf"))]


def test_pull_of_a_catalog_repo_by_its_file_is_the_catalog_model(modelhub: CommandLine) -> None:
    modelhub.client.then((PLACED,))
    assert modelhub("pull", "acme/tiny-gguf:tiny-Q4.gguf").code == 0
    assert modelhub.client.asked("register")[0][1].revision == "abc"  # type: ignore[attr-defined]
    modelhub.client.calls.clear()
    modelhub.client.refusal = Rejected("No such file.")
    assert modelhub("pull", "Acme/Tiny-GGUF:tiny-Q8.gguf").code == 1
    assert modelhub.client.asked("register") == [("register", RegisterRequest("Acme/Tiny-GGUF", "tiny-Q8.gguf"))]


def test_no_wait_returns_at_once(modelhub: CommandLine) -> None:
    result = modelhub("pull", "tiny", "other", "--no-wait")
    assert result.code == 0 and result.out == ""
    assert result.err.count("is queued") == 2
    assert len(modelhub.client.asked("register")) == 2
    (line,) = modelhub("pull", "tiny", "--no-wait", "--json").json_lines
    assert (line["name"], line["state"]) == ("acme/tiny-gguf", "queued")


def test_a_refused_pull_does_not_stop_the_others(modelhub: CommandLine) -> None:
    modelhub.client.refusal = Rejected("That repo has several files.", candidates=("a.gguf", "b.gguf"))
    result = modelhub("pull", "zed/model")
    assert result.code == 1
    assert "That repo has several files. Choose one of: a.gguf, b.gguf." in result.err
    modelhub.client.say(PLACED)
    result = modelhub("pull", "zed/model", "tiny")
    assert (result.code, result.out) == (1, "/m/tiny-Q4.gguf\n")


def test_a_pull_that_somebody_cancels_fails(modelhub: CommandLine) -> None:
    modelhub.client.then((told(),), (FETCHING,), ())
    result = modelhub("pull", "tiny")
    assert result.code == 1 and "cancelled" in result.err
    modelhub.client.then((STRANGER,), (STRANGER,), ())
    modelhub.client.calls.clear()
    result = modelhub("pull", "zed/model-gguf")
    assert result.code == 1 and "removed while it was being fetched" in result.err


def test_registered_already_by_somebody_else_is_followed(modelhub: CommandLine) -> None:
    modelhub.client.refusal = AlreadyRegistered("acme/tiny-gguf")
    modelhub.client.then((FETCHING,), (PLACED,))
    assert modelhub("pull", "tiny").out == "/m/tiny-Q4.gguf\n"


def test_an_interrupt_leaves_the_download_running(modelhub: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("modelhub_tui.cli.pull._advance", interrupt)
    result = modelhub("pull", "tiny")
    assert result.code == 130
    assert "tiny: the download goes on in the background" in result.err and "modelhub rm tiny --cancel" in result.err


def test_a_refusal_that_names_the_repo_is_not_prefixed_with_it(modelhub: CommandLine) -> None:
    modelhub.client.refusal = Rejected("Zed/Model-GGUF is gated: accept its terms.")
    assert modelhub("pull", "Zed/Model-GGUF").err == "modelhub: Zed/Model-GGUF is gated: accept its terms.\n"


def test_a_full_disk_does_not_hold_up_a_pull_for_ever(modelhub: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("modelhub_tui.cli.pull.PAUSE_PATIENCE_S", 0.02)
    modelhub.client.then((PAUSED,))
    result = modelhub("pull", "tiny")
    assert (result.code, result.out) == (1, "")
    assert result.err.splitlines()[-1] == "modelhub: tiny is paused. Needs 600 B, free 0 B."


def test_a_pull_while_offline_says_when_it_is_tried_again_and_ends(
    modelhub: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("modelhub_tui.cli.pull.OUTAGE_PATIENCE_S", 0.05)
    waits = Transfer(
        "gpu-01",
        Phase.WAITING,
        retry_in_s=12.0,
        error="The hub cannot be reached; check the network.",
        error_code="hub_unreachable",
    )
    modelhub.client.then((told(transfers=(waits,)),))
    result = modelhub("pull", "tiny")
    assert (result.code, result.out) == (1, "")
    assert "offline, trying again in 12 s: The hub cannot be reached" in result.err
    assert "It stays in the queue, and is tried again by itself." in result.err
    modelhub.client = ScriptedClient(RouterReport((told(transfers=(waits,)),), (NODE,)))
    modelhub.client.then((PLACED,))
    assert modelhub("pull", "tiny").code == 0
    assert modelhub.client.asked("retry"), "asking again is a reason to try at once"


def test_a_pause_that_ends_in_time_is_waited_for(modelhub: CommandLine) -> None:
    modelhub.client.then((PAUSED,), (FETCHING,), (PLACED,))
    assert modelhub("pull", "tiny").code == 0


# -- rm ---------------------------------------------------------------------------------------------------------------


def test_rm_waits_until_the_bytes_are_gone(modelhub: CommandLine) -> None:
    modelhub.client.say(PLACED)
    leaving = replace(PLACED, registered=False, deleting=True)
    modelhub.client.then((leaving,), (leaving,), ())
    result = modelhub("rm", "tiny", "--yes")
    assert (result.code, result.out) == (0, "Deleted tiny; 1 kB freed.\n")
    assert modelhub.client.asked("delete") == [("delete", "acme/tiny-gguf")]
    assert modelhub.client.script == []


def test_rm_json(modelhub: CommandLine) -> None:
    modelhub.client.say(FETCHING)
    modelhub.client.then(())
    assert modelhub("rm", "tiny", "-y", "--cancel", "--json").json == [
        {
            "id": "tiny",
            "name": "acme/tiny-gguf",
            "deleted": True,
            "reason": None,
            "freed_bytes": 400,
            "left_on": [],
            "trash": None,
        }
    ]


def test_rm_asks_and_needs_somebody_to_answer(modelhub: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    modelhub.client.say(PLACED)
    result = modelhub("rm", "tiny")
    assert result.code == 2 and "--yes" in result.err
    asked: list[str] = []

    def answer(yes: bool) -> None:
        monkeypatch.setattr(
            "modelhub_tui.cli.output.Console.confirm", lambda _, question: (asked.append(question), yes)[1]
        )

    answer(False)
    result = modelhub("rm", "tiny")
    assert (result.code, result.err) == (1, "Nothing was deleted.\n")
    assert asked == [
        "Delete tiny (1 kB on gpu-01)? "
        "It can be undone for 1 hour with `modelhub undo`, unless a download needs the room before."
    ]
    assert modelhub.client.asked("delete") == []
    answer(True)
    modelhub.client.then(())
    assert modelhub("rm", "tiny").code == 0


def test_rm_of_what_is_not_here_is_not_found(modelhub: CommandLine) -> None:
    modelhub.client.say(PLACED)
    assert modelhub("rm", "other", "--yes").code == 5
    assert modelhub("rm", "nonsense", "--yes").code == 5
    refused = modelhub("rm", "gguf", "acme", "--yes", "--cancel")
    assert (refused.code, refused.out) == (2, "") and "is a part of a name; type it in full: " in refused.err
    assert not modelhub.client.asked("delete")
    assert modelhub.client.asked("delete") == []


def test_rm_of_what_nobody_pulled_says_so(modelhub: CommandLine) -> None:
    modelhub.client.say(PLACED)
    result = modelhub("rm", "other", "--yes")
    assert (result.code, result.out) == (5, "")
    assert result.err == (
        "modelhub: other is not downloaded, so there is nothing to delete. `modelhub local` shows what is.\n"
    )


def test_rm_of_what_begins_to_move_meanwhile_speaks_in_flags(modelhub: CommandLine) -> None:
    modelhub.client.say(PLACED)
    modelhub.client.refusal = Rejected("Ask for both with ?cancel=true.", code="transfer_running")
    result = modelhub("rm", "tiny", "--yes")
    assert (result.code, result.out) == (1, "")
    assert "Add --cancel to stop that" in result.err and "?" not in result.err


def test_what_was_deleted_here_is_no_news_for_the_dashboard(modelhub: CommandLine) -> None:
    """It calls gone what others deleted."""
    both = (PLACED, replace(PLACED, name="acme/other-gguf", repo="Acme/Other-GGUF", file="other.gguf"))
    before = Fleet(join_models((ENTRY, OTHER), RouterReport(both, (NODE,))), (NODE,))
    settings = load_settings({})
    path = fleet_path(settings.cache_dir, None, str(catalog_path(settings.catalog)))
    save_fleet(path, replace(before, connection=Connection(Link.LIVE, heard_at=1.0)), "stamp")
    modelhub.client.say(*both)
    modelhub.client.then((both[1],))
    assert modelhub("rm", "tiny", "--yes").code == 0
    kept = load_fleet(path)
    assert kept is not None and kept.catalog == "stamp"
    now = Fleet(join_models((ENTRY, OTHER), RouterReport((), (NODE,))), (NODE,), connection=Connection(Link.LIVE))
    assert while_away(kept.fleet, now) == "While you were away: 1 gone."


def test_rm_does_not_wait_for_a_node_that_is_away(modelhub: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("modelhub_tui.cli.remove.OFFLINE_PATIENCE_S", 0.05)
    away = Node("n1", "gpu-01", NodeStatus.OFFLINE)
    modelhub.client.say(PLACED, nodes=(away,))
    leaving = RouterReport((replace(PLACED, registered=False, deleting=True),), (away,))
    modelhub.client.script = [leaving]
    result = modelhub("rm", "tiny", "--yes")
    assert (result.code, result.err) == (0, "")
    assert result.out == "Deleted tiny. gpu-01 is offline; 1 kB there are freed when it is back.\n"
    modelhub.client.say(PLACED, nodes=(away,))
    modelhub.client.script = [leaving]
    (told,) = modelhub("rm", "tiny", "--yes", "--json").json
    assert (told["deleted"], told["freed_bytes"], told["left_on"]) == (True, 0, ["gpu-01"])


def test_rm_of_what_a_lost_node_was_fetching_frees_nothing_yet(modelhub: CommandLine) -> None:
    away = Node("n1", "gpu-01", NodeStatus.OFFLINE)
    lost = replace(FETCHING, transfers=tuple(replace(each, orphaned=True) for each in FETCHING.transfers))
    modelhub.client.say(lost, nodes=(away,))
    modelhub.client.script = [RouterReport((), (away,))]  # the router forgets the orphan at once
    result = modelhub("rm", "tiny", "--yes", "--cancel")
    assert (result.code, result.err) == (0, "")
    assert result.out == "Deleted tiny. gpu-01 is offline; 400 B there are freed when it is back.\n"


def test_rm_of_what_a_node_fetched_that_is_lost_meanwhile(modelhub: CommandLine) -> None:
    away = replace(NODE, status=NodeStatus.OFFLINE)
    leaving = replace(FETCHING, registered=False, deleting=True)
    modelhub.client.say(FETCHING)
    modelhub.client.script = [
        RouterReport((leaving,), (NODE,)),
        RouterReport((leaving,), (away,)),
        RouterReport((), (away,)),
    ]
    result = modelhub("rm", "tiny", "--yes", "--cancel")
    assert (result.code, result.err) == (0, "") and "is offline; 400 B there are freed" in result.out


def test_rm_waits_for_the_node_of_a_service_that_was_just_started(modelhub: CommandLine) -> None:
    away = Node("n1", "gpu-01", NodeStatus.OFFLINE)
    modelhub.client.say(PLACED, nodes=(away,))
    leaving = replace(PLACED, registered=False, deleting=True)
    modelhub.client.script = [
        RouterReport((leaving,), (away,)),
        RouterReport((leaving,), (replace(away, status=NodeStatus.ONLINE),)),
        RouterReport((), (replace(away, status=NodeStatus.ONLINE),)),
    ]
    result = modelhub("rm", "tiny", "--yes")
    assert (result.code, result.err) == (0, "") and result.out.startswith("Deleted tiny")


# -- register ---------------------------------------------------------------------------------------------------------


def test_register_prints_the_routers_name(modelhub: CommandLine) -> None:
    result = modelhub("register", "Zed/Model-GGUF", "--file", "m.gguf")
    assert (result.code, result.out) == (0, "zed/model-gguf\n")
    assert modelhub.client.asked("register") == [("register", RegisterRequest("Zed/Model-GGUF", "m.gguf"))]
    assert modelhub("register", "http://127.0.0.1:9/Zed/M/resolve/v2/a/b.gguf?download=true", "--json").json == {
        "name": "zed/m", "new": True, "file": "a/b.gguf", "size_bytes": None, "warnings": [],
    }  # fmt: skip
    assert modelhub.client.asked("register")[1] == ("register", RegisterRequest("Zed/M", "a/b.gguf", "v2"))


def test_registering_twice_is_fine(modelhub: CommandLine) -> None:
    modelhub.client.refusal = AlreadyRegistered("zed/model-gguf")
    result = modelhub("register", "Zed/Model-GGUF")
    assert (result.code, result.out) == (0, "zed/model-gguf\n") and "already" in result.err


@pytest.mark.parametrize(
    "repo",
    [
        "plain",
        "https://evil.example/a/b",
        "a/b/../../etc",
        "https://huggingface.co/datasets/a/b",
        "a b/c",
        "",
        "ftp://a/b",
    ],
)
def test_a_bad_reference_is_a_usage_error(modelhub: CommandLine, repo: str) -> None:
    result = modelhub("register", repo)
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith("modelhub: ") and result.err.count("\n") == 1
    assert modelhub.client.calls == []


def test_a_bad_file_name_is_a_usage_error(modelhub: CommandLine) -> None:
    assert modelhub("register", "a/b", "--file", "../../x").code == 2


# -- status, catalog, errors ------------------------------------------------------------------------------------------


def test_status_of_a_remote_router(modelhub: CommandLine) -> None:
    modelhub.client.say(FETCHING)
    told_back = modelhub("status", "--json", "--router", "http://r:1").json
    assert told_back.keys() == {"version", "mode", "router", "service", "unheard", "nodes", "transfers"}
    assert (told_back["mode"], told_back["service"]) == ("remote", None)
    assert told_back["router"].keys() == {"url", "generation", "version"}
    assert (
        told_back["nodes"][0]["name"] == "gpu-01" and told_back["nodes"][0]["last_seen"] == "1970-01-01T00:01:40.000Z"
    )
    assert told_back["transfers"][0]["progress"]["bytes_done"] == 400
    result = modelhub("--router", "http://r:1", "status")
    assert "gpu-01: online" in result.out and "downloading" in result.out and "40%" in result.out
    assert modelhub("status", "--show-key", "--router", "http://r:1").code == 2


def test_status_starts_no_service(modelhub: CommandLine) -> None:
    told_back = modelhub("status", "--json").json
    assert (told_back["mode"], told_back["router"], told_back["service"]) == ("embedded", None, None)
    assert modelhub.client.calls == []
    assert "No service runs" in modelhub("status").out


@pytest.mark.parametrize(
    ("problem", "code"),
    [
        (Unreachable("http://r:1"), 3),
        (NotARouter("http://r:1", "a web page"), 3),
        (Unauthorised(), 4),
        (Forbidden(), 4),
        (RouterFault("oops."), 1),
    ],
)
@pytest.mark.parametrize("command", [["list"], ["local"], ["pull", "tiny"], ["rm", "tiny", "-y"], ["register", "a/b"]])
def test_each_kind_of_error_has_its_exit_code(
    modelhub: CommandLine, command: list[str], problem: Exception, code: int
) -> None:
    modelhub.problem = problem
    result = modelhub(*command)
    assert (result.code, result.out) == (code, "")
    assert result.err.startswith("modelhub: ") and result.err.count("\n") == 1 and "Traceback" not in result.err


def test_a_bug_is_one_sentence_and_a_log(
    modelhub: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MODELHUB_STATE_DIR", str(tmp_path / "s"))
    monkeypatch.setenv("MODELHUB_API_KEY", "sk_very_secret")
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [])
    modelhub.problem = ZeroDivisionError("a bug with sk_very_secret")
    result = modelhub("list")
    assert result.code == 1 and "Traceback" not in result.err and "sk_very" not in result.err
    logged = (tmp_path / "s" / "cli.log").read_text()
    assert "ZeroDivisionError" in logged and "sk_very_secret" not in logged
    assert (tmp_path / "s" / "cli.log").stat().st_mode & 0o777 == 0o600


def test_global_flags_stand_before_or_after(modelhub: CommandLine) -> None:
    for argv in (
        ["--router", "http://r:1", "--api-key", "k", "list"],
        ["list", "--router", "http://r:1", "--api-key=k"],
    ):
        assert modelhub(*argv).code == 0
        assert (modelhub.settings.router, modelhub.settings.api_key) == ("http://r:1", "k")
    assert modelhub("--router", "http://r:1", "list", "--router", "http://s:2").code == 0
    assert modelhub.settings.router == "http://s:2"


@pytest.mark.parametrize("argv", [["nonsense"], ["pull"], ["list", "--bogus"], ["serve", "--port", "70000"], ["lis"]])
def test_wrong_usage_is_exit_code_2(modelhub: CommandLine, argv: list[str]) -> None:
    result = modelhub(*argv)
    assert result.code == 2 and result.out == "" and "usage: modelhub" in result.err


@pytest.mark.parametrize(
    "command",
    [
        "list",
        "local",
        "pull",
        "rm",
        "register",
        "status",
        "serve",
        "node",
        "stop",
        "catalog",
        "pause",
        "resume",
        "move",
        "limits",
        "undo",
        "trash",
        "adopt",
    ],
)
def test_every_command_explains_itself_with_examples(modelhub: CommandLine, command: str) -> None:
    result = modelhub(command, "--help")
    assert result.code == 0
    assert f"examples:\n  modelhub {command}" in result.out
    assert all(len(line) <= 100 for line in result.out.splitlines())


def test_node_needs_a_router_and_a_key(modelhub: CommandLine) -> None:
    assert "--router" in modelhub("node").err
    result = modelhub("node", "--router", "http://r:1")
    assert result.code == 2 and "MODELHUB_API_KEY" in result.err


def test_catalog_check(modelhub: CommandLine, tmp_path: Path) -> None:
    bad = tmp_path / "bad.yaml"
    bad.write_text("schema: 1\nmodels:\n- id: x\n")
    result = modelhub("catalog", "check", str(bad))
    assert result.code == 1 and f"{bad}:" in result.out and "problem" in result.err
    assert modelhub("catalog", "check", str(bad), "--json").json["problems"]
    assert modelhub("catalog", "check").code == 0
    assert modelhub("catalog", "check", "--json").json["problems"] == []
    result = modelhub("catalog", "check", "--catalog", str(tmp_path / "none.yaml"))
    assert result.code == 1


def test_hostile_text_does_not_reach_the_terminal(modelhub: CommandLine) -> None:
    modelhub.client.say(replace(STRANGER, title="plain"))
    result = modelhub("pull", "a\x1b[31m\u202eb")
    assert result.code == 5 and "\x1b" not in result.err and "\u202e" not in result.err


def test_a_look_at_this_machines_service_needs_no_client(
    modelhub: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = RouterReport((PLACED,), (NODE,))
    router = RouterInfo("this machine", "http://127.0.0.1:1", "0.1.0", "local", supplies_stats=True)
    seen: list[tuple[RouterInfo, RouterReport] | None] = [(router, report), None]
    monkeypatch.setattr(Connect, "at_once", lambda _: seen.pop(0), raising=False)
    modelhub.problem = RouterFault("a client was made.")
    assert [each["id"] for each in modelhub("local", "--json").json] == ["tiny"]
    assert "a client was made." in modelhub("local", "--json").err  # not simple: the whole client is asked


def test_the_real_connector_looks_at_once_only_on_this_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    settings = Settings(tmp_path, tmp_path, tmp_path)
    service = SimpleNamespace(url="http://127.0.0.1:9", folder=tmp_path, version="0.1.0", notices=("Repaired.",))
    monkeypatch.setattr("modelhub_tui.service.lifecycle.ensure_service", lambda _: service)
    report = RouterReport((PLACED,), (NODE,))
    monkeypatch.setattr("modelhub_tui.client.quick.report", lambda folder, _: {tmp_path: report}[folder])
    seen = connector(settings).at_once()
    assert (
        seen is not None
        and seen[1] == replace(report, notices=("Repaired.",))
        and seen[0].label == "this machine"
        and seen[0].supplies_stats
    )
    assert connector(replace(settings, router="http://r:1")).at_once() is None


class Leaving(ScriptedClient):
    """A router that goes away after it took the order."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self._error = error

    async def report(self, *, wait_s: float = 0.0) -> RouterReport:
        if self._acted:
            raise self._error
        return await super().report(wait_s=wait_s)


def test_a_pull_survives_a_router_that_comes_back(modelhub: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    back = ScriptedClient(RouterReport((PLACED,), (NODE,)))
    clients = iter([Leaving(Unreachable("http://r:1")), back])
    monkeypatch.setattr(Connect, "__call__", lambda _: _ready(next(clients)))
    result = modelhub("pull", "tiny")
    assert (result.code, result.out) == (0, "/m/tiny-Q4.gguf\n")


async def _ready(client: ScriptedClient) -> ScriptedClient:
    return client


def test_a_router_that_stays_away_is_exit_code_3(modelhub: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("modelhub_tui.cli.fleet.PATIENCE_S", 0.1)
    modelhub.client = Leaving(Unreachable("http://r:1"))
    result = modelhub("pull", "tiny")
    assert result.code == 3 and "No router answers" in result.err


def test_a_key_that_is_withdrawn_is_exit_code_4(modelhub: CommandLine) -> None:
    modelhub.client = Leaving(Unauthorised())
    assert modelhub("pull", "tiny").code == 4


@pytest.mark.parametrize(
    ("code", "exit_code"), [("gated", 4), ("bad_token", 4), ("no_such_repo", 5), ("no_such_file", 5), ("no_space", 1)]
)
def test_the_exit_code_tells_what_kind_of_refusal_it_was(modelhub: CommandLine, code: str, exit_code: int) -> None:
    modelhub.client.refusal = Rejected("No.", code=code)
    assert modelhub("register", "Zed/Model-GGUF").code == exit_code
    assert modelhub("pull", "Zed/Model-GGUF").code == exit_code


def test_a_typed_key_is_warned_of(modelhub: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there = ("list", "--json", "--router", "http://r:1")
    warned = modelhub(*there, "--api-key", "k-e-y")
    assert warned.code == 0 and warned.err.count("\n") == 1 and "k-e-y" not in warned.err
    assert "every user of this machine" in warned.err and "--api-key-file" in warned.err
    assert modelhub.settings.api_key == "k-e-y"
    (tmp_path / "key").write_text("k-e-y\n")
    assert modelhub(*there, "--api-key-file", str(tmp_path / "key")).err == ""
    assert modelhub.settings.api_key == "k-e-y"
    monkeypatch.setenv("MODELHUB_API_KEY", "k-e-y")
    assert modelhub(*there).err == ""
