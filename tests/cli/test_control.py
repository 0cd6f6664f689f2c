"""Queue, limits, trash and adoption from the command line: what is asked, what is printed where, the exit code."""

from __future__ import annotations

from dataclasses import replace

import pytest

from modelhub_tui.domain import (
    Event,
    Limits,
    Node,
    NodeStatus,
    Phase,
    Place,
    Placement,
    RouterModel,
    RouterReport,
    Transfer,
    Trashed,
)
from modelhub_tui.errors import NotSupported, Rejected
from tests.cli.conftest import CommandLine
from tests.client.fakes import NODE, told

HERE = Placement("gpu-01", "/m/tiny-Q4.gguf", ("/m/tiny-Q4.gguf",), 1000)
PLACED = told(placements=(HERE,))
FETCHING = told(
    transfers=(Transfer("gpu-01", Phase.FETCHING, 400, 1000, 50.0, 12.0, "tiny-Q4.gguf", 1, 1),), queue_position=1
)
HELD = told(
    transfers=(Transfer("gpu-01", Phase.PAUSED, 400, 1000, error_code="paused"),), paused=True, queue_position=1
)
WAITING = told(
    name="acme/other-gguf",
    repo="Acme/Other-GGUF",
    file="other.gguf",
    transfers=(Transfer("gpu-01", Phase.WAITING, 0, 2000),),
    queue_position=2,
)
FOUND = told(registered=False, found=True, placements=(HERE,))
KEPT = Trashed("acme/tiny-gguf", "Tiny Instruct", "Acme/Tiny-GGUF", "tiny-Q4.gguf", 1000, 1000.0, 4600.0, ("gpu-01",))
OLDER = Trashed("acme/other-gguf", "Other", "Acme/Other-GGUF", "other.gguf", 2000, 900.0, 4500.0)


# -- the queue --------------------------------------------------------------------------------------------------------


def test_pause_says_what_is_kept_and_how_it_goes_on(modelhub: CommandLine) -> None:
    modelhub.client.say(FETCHING)
    modelhub.client.then((HELD,))
    result = modelhub("pause", "tiny")
    assert (result.code, result.out) == (0, "")
    assert result.err == "tiny is paused at 400 B. `modelhub resume tiny` lets it go on.\n"
    assert modelhub.client.asked("pause") == [("pause", "acme/tiny-gguf")]
    assert modelhub.client.closed


def test_resume_and_its_json(modelhub: CommandLine) -> None:
    modelhub.client.say(HELD, WAITING)
    modelhub.client.then((FETCHING, WAITING))
    result = modelhub("resume", "tiny", "other", "--json")
    assert modelhub.client.asked("resume") == [("resume", "acme/tiny-gguf"), ("resume", "acme/other-gguf")]
    assert [(each["id"], each["state"], each["paused"], each["queue_position"]) for each in result.json] == [
        ("tiny", "downloading", False, 1),
        ("other", "queued", False, 2),
    ]


def test_move_prints_the_new_place(modelhub: CommandLine) -> None:
    modelhub.client.say(FETCHING, WAITING)
    modelhub.client.then((replace(FETCHING, queue_position=2), replace(WAITING, queue_position=1)))
    result = modelhub("move", "other", "first")
    assert (result.code, result.err) == (0, "other is 1st in the queue.\n")
    assert modelhub.client.asked("move") == [("move", "acme/other-gguf", Place.FIRST)]
    assert modelhub("move", "other", "sideways").code == 2


@pytest.mark.parametrize("command", [("pause",), ("resume",), ("move", "last")])
def test_a_refusal_is_said_with_the_name(modelhub: CommandLine, command: tuple[str, ...]) -> None:
    modelhub.client.say(PLACED)
    modelhub.client.refusal = Rejected("It is whole already.", code="nothing_to_do")
    result = modelhub(command[0], "tiny", *command[1:])
    assert (result.code, result.out, result.err) == (1, "", "modelhub: tiny: It is whole already.\n")
    assert modelhub(command[0], "nonsense", *command[1:]).code == 5


@pytest.mark.parametrize("command", [("pause",), ("resume",), ("move", "last")])
def test_what_nobody_pulled_is_not_called_unknown(modelhub: CommandLine, command: tuple[str, ...]) -> None:
    result = modelhub(command[0], "tiny", *command[1:])
    assert (result.code, result.out) == (5, "")
    assert result.err == "modelhub: tiny is not being downloaded. Start it with `modelhub pull tiny`.\n"
    assert modelhub.client.asked(command[0]) == []


def test_a_name_that_fits_one_download_means_that_one(modelhub: CommandLine) -> None:
    modelhub.client.say(WAITING)
    modelhub.client.then((replace(WAITING, paused=True),))
    assert modelhub("pause", "acme").code == 0  # two models have it in their repo, one is in the queue
    assert modelhub.client.asked("pause") == [("pause", "acme/other-gguf")]


# -- limits -----------------------------------------------------------------------------------------------------------


def test_limits_are_printed(modelhub: CommandLine) -> None:
    modelhub.client.in_force = Limits(4, 50_000_000, None, 0, 64 * 1024**3)
    result = modelhub("limits")
    assert result.code == 0 and result.err == ""
    lines = [line.split("  ") for line in result.out.splitlines()]
    assert {line[0]: line[1].strip() or line[2].strip() for line in lines[1:]} == {
        "parallel": "4",
        "bandwidth": "50M/s",
        "disk floor": "auto",
        "trash time": "never",
        "trash size": "64Gi",
    }
    assert modelhub("limits", "--json").json == {
        "parallel_transfers": 4,
        "bandwidth_bps": 50_000_000,
        "disk_floor_bytes": None,
        "trash_seconds": 0,
        "trash_bytes": 64 * 1024**3,
    }
    assert modelhub.client.asked("set_limits") == []


def test_what_is_named_is_changed_and_the_rest_stays(modelhub: CommandLine) -> None:
    modelhub.client.in_force = Limits(4, 5000, 7, 60, 9)
    told_back = modelhub("limits", "--bandwidth", "20MB/s", "--trash-seconds", "2d", "--json").json
    assert (told_back["bandwidth_bps"], told_back["trash_seconds"]) == (20_000_000, 172_800)
    assert modelhub.client.in_force == Limits(4, 20_000_000, 7, 172_800, 9)
    assert modelhub("limits", "--parallel", "1", "--disk-floor", "auto", "--trash-size", "0").code == 0
    assert modelhub.client.in_force == Limits(1, 20_000_000, None, 172_800, 0)


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--parallel", "17"], "--parallel: '17' is out of range; it must be at most 16."),
        (["--bandwidth", "auto"], "--bandwidth: 'auto' is no size; write it as 500M, 20G or 64GiB"),
        (["--trash-seconds", "soon"], "--trash-seconds: 'soon' is no duration; write it as 90s"),
    ],
)
def test_what_is_no_limit_is_refused_before_anybody_is_asked(modelhub: CommandLine, argv: list[str], said: str) -> None:
    result = modelhub("limits", *argv)
    assert result.code == 2 and result.err.startswith(f"modelhub: {said}")
    assert modelhub.client.calls == []


def test_a_router_without_limits_says_so(modelhub: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    async def none(_: object) -> Limits:
        raise NotSupported("tell or change the limits of its nodes' downloads")

    monkeypatch.setattr(type(modelhub.client), "limits", none)
    result = modelhub("limits")
    assert (result.code, result.out) == (1, "") and result.err.startswith("modelhub: This router cannot tell")


# -- trash, undo ------------------------------------------------------------------------------------------------------


def test_trash_lists_what_can_be_had_back(modelhub: CommandLine) -> None:
    modelhub.client.kept = (KEPT, OLDER)
    result = modelhub("trash")
    assert [line.split()[0] for line in result.out.splitlines()] == ["NAME", "acme/tiny-gguf", "acme/other-gguf"]
    assert "`modelhub undo NAME`" in result.err
    assert modelhub("trash", "tiny", "--json").json == [
        {
            "name": "acme/tiny-gguf",
            "title": "Tiny Instruct",
            "repo": "Acme/Tiny-GGUF",
            "file": "tiny-Q4.gguf",
            "bytes": 1000,
            "deleted_at": "1970-01-01T00:16:40.000Z",
            "expires_at": "1970-01-01T01:16:40.000Z",
            "nodes": ["gpu-01"],
        }
    ]
    modelhub.client.kept = ()
    result = modelhub("trash")
    assert (result.code, result.out, result.err) == (0, "", "The trash is empty.\n")
    assert modelhub("trash", "--json").json == []
    assert modelhub("trash", "--empty").code == 0 and modelhub.client.asked("empty_trash") == []


def test_emptying_the_trash_is_asked_about(modelhub: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    modelhub.client.kept = (KEPT, OLDER)
    result = modelhub("trash", "--empty")
    assert result.code == 2 and "--yes" in result.err
    asked: list[str] = []
    monkeypatch.setattr("modelhub_tui.cli.output.Console.confirm", lambda _, question: asked.append(question) or False)
    assert modelhub("trash", "--empty").code == 1
    assert asked == ["Free 3 kB for good: Tiny Instruct, Other?"]
    assert modelhub.client.asked("empty_trash") == []
    refused = modelhub("trash", "--empty", "tiny", "--yes")
    assert refused.code == 2 and "type it in full: acme/tiny-gguf." in refused.err
    assert not modelhub.client.asked("empty_trash")
    result = modelhub("trash", "--empty", "acme/other-gguf", "--yes")
    said = "Waiting for the nodes to free the space.\n2 kB will be freed as soon as the nodes get to it.\n"
    assert (result.code, result.err) == (0, said)
    modelhub("trash", "--empty", "-y")
    assert modelhub.client.asked("empty_trash") == [("empty_trash", "acme/other-gguf"), ("empty_trash", None)]


def test_freed_is_said_when_the_files_are_gone(modelhub: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    older = replace(OLDER, nodes=("gpu-01",))
    modelhub.client.kept = (KEPT, older)

    def empties(*steps: int | None, status: NodeStatus = NodeStatus.ONLINE) -> str:
        """What is said while the node tells of these bytes in its trash, one after the other."""
        first, *then = [RouterReport((), (replace(NODE, trash_bytes=each, status=status),)) for each in steps]
        modelhub.client.current, modelhub.client.script = first, then
        modelhub.client._acted = False
        result = modelhub("trash", "--empty", "-y")
        assert result.code == 0 and not modelhub.client.script, "it did not look until the end"
        return result.err

    assert empties(3000, 3000, 2000, 0) == "3 kB freed.\n"
    assert empties(2500, 2500, 0) == "2 kB freed.\n", "a file that both have counts once"
    away = empties(3000, 3000, status=NodeStatus.OFFLINE)
    assert away == "3 kB will be freed when gpu-01 is back.\n"
    monkeypatch.setattr("modelhub_tui.cli.trash.FREED_PATIENCE_S", 0.3)
    assert empties(3000, 1000) == "2 kB freed, 1 kB will be as soon as the nodes get to it.\n"


def test_undo_brings_the_last_deletion_back_and_waits_for_it(modelhub: CommandLine) -> None:
    modelhub.client.kept = (OLDER, KEPT)
    modelhub.client.then((told(),), (told(),), (PLACED,))
    result = modelhub("undo")
    assert (result.code, result.out, result.err) == (0, "/m/tiny-Q4.gguf\n", "Tiny Instruct is back.\n")
    assert modelhub.client.asked("restore") == [("restore", "acme/tiny-gguf")]


def test_undo_of_what_no_node_puts_back_in_time(modelhub: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("modelhub_tui.cli.trash.BACK_PATIENCE_S", 0.05)
    modelhub.client.kept = (KEPT,)
    modelhub.client.then((told(),))
    result = modelhub("undo", "tiny")
    assert (result.code, result.out) == (0, "")
    assert result.err == "Tiny Instruct is registered again; its nodes put its files back, or fetch them.\n"


def test_nothing_to_undo_is_not_found(modelhub: CommandLine) -> None:
    result = modelhub("undo")
    assert (result.code, result.out) == (5, "")
    assert result.err == "modelhub: The trash is empty: there is nothing to bring back.\n"
    modelhub.client.kept = (KEPT, OLDER)
    result = modelhub("undo", "nonsense\x1b[31m")
    assert result.code == 5 and "nonsense[31m is not in the trash" in result.err and "\x1b" not in result.err
    assert modelhub("undo", "acme").code == 2  # both
    assert modelhub.client.asked("restore") == []
    modelhub.client.refusal = Rejected("It is gone.", code="not_in_trash")
    assert modelhub("undo", "tiny").code == 5


# -- adopt, local -----------------------------------------------------------------------------------------------------


def test_adopt_registers_what_was_found(modelhub: CommandLine) -> None:
    stranger = replace(FOUND, name="zed/m-gguf", repo="Zed/M-GGUF", file="m.gguf")
    modelhub.client.say(FOUND, stranger)
    result = modelhub("adopt", "zed")
    assert (result.code, result.out) == (0, "zed/m-gguf\n")
    assert modelhub("adopt", "--all", "--json").json == [
        {"id": "tiny", "name": "acme/tiny-gguf", "new": True, "file": "tiny-Q4.gguf", "size_bytes": 1000},
        {"id": None, "name": "zed/m-gguf", "new": True, "file": "m.gguf", "size_bytes": None},
    ]
    assert modelhub.client.asked("adopt") == [
        ("adopt", "zed/m-gguf"),
        ("adopt", "acme/tiny-gguf"),
        ("adopt", "zed/m-gguf"),
    ]


def test_adopting_nothing(modelhub: CommandLine) -> None:
    modelhub.client.say(PLACED)
    assert modelhub("adopt").code == 2
    assert modelhub("adopt", "tiny", "--all").code == 2
    result = modelhub("adopt", "--all")
    assert (result.code, result.out) == (0, "") and "Nothing was found" in result.err
    (known,) = modelhub("adopt", "tiny", "--json").json
    assert known["new"] is False and modelhub.client.asked("adopt") == []
    modelhub.client.refusal = Rejected("No node has it.", code="not_on_disk")
    assert modelhub("adopt", "other").code == 5


def test_local_tells_true_disk_use_and_what_could_be_adopted(modelhub: CommandLine) -> None:
    node = replace(
        NODE, models_bytes=5_000, found_bytes=1_000, unfinished_bytes=3_000, trash_bytes=2_000, disk_free_bytes=7_000
    )
    modelhub.client.say(FOUND, nodes=(node,))
    result = modelhub("local")
    assert result.out.splitlines()[1].split() == ["tiny", "1", "kB", "gpu-01", "not", "registered", "/m/tiny-Q4.gguf"]
    assert result.err.splitlines() == [
        "gpu-01: 6 kB of models (1 kB of it not registered), shared files counted once, "
        "3 kB of unfinished downloads (`modelhub status`), 2 kB in the trash (`modelhub trash`), 7 kB free.",
        "1 of them is in the cache, but not registered: `modelhub adopt tiny` lets the router know it.",
    ]
    assert modelhub("local", "--json").json[0]["found"] is True
    # Without a model there may be something that takes space all the same.
    modelhub.client.say(nodes=(replace(node, models_bytes=0, found_bytes=0),))
    said = modelhub("local").err
    assert "Nothing here yet" in said and "0 B of models, shared files counted once, 3 kB of unfinished" in said
    modelhub.client.say(nodes=(replace(NODE, models_bytes=0, trash_bytes=0, unfinished_bytes=0),))
    assert len(modelhub("local").err.splitlines()) == 1


# -- rm ---------------------------------------------------------------------------------------------------------------


def test_rm_refuses_what_is_being_downloaded(modelhub: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    modelhub.client.say(FETCHING)
    result = modelhub("rm", "tiny", "--yes")
    assert (result.code, result.out) == (1, "")
    assert "tiny: being downloaded just now. Add --cancel" in result.err
    assert modelhub.client.asked("delete") == []
    asked: list[str] = []
    monkeypatch.setattr("modelhub_tui.cli.output.Console.confirm", lambda _, question: asked.append(question) or True)
    modelhub.client.then(())
    assert modelhub("rm", "tiny").code == 0
    assert asked == ["Delete tiny (400 B on gpu-01)? tiny: being downloaded; that is stopped."]
    assert modelhub.client.said == [{"cancel": True, "keep": True}]


@pytest.mark.parametrize("model", [HELD, WAITING])
def test_rm_of_what_only_waits_needs_no_cancel(modelhub: CommandLine, model: RouterModel) -> None:
    modelhub.client.say(model)
    modelhub.client.then(())
    assert modelhub("rm", model.name, "--yes").code == 0
    assert modelhub.client.said == [{"cancel": False, "keep": True}]


def test_rm_says_until_when_it_can_be_undone(modelhub: CommandLine) -> None:
    modelhub.client.say(PLACED)
    modelhub.client.kept = (KEPT, OLDER)
    modelhub.client.then(())
    result = modelhub("rm", "tiny", "--yes")
    assert result.code == 0
    assert result.out.startswith("Deleted tiny; 1 kB kept in the trash until ")
    assert result.out.endswith(", or until a download needs the room: `modelhub undo` brings it back.\n")
    modelhub.client.script = [RouterReport((PLACED,), (NODE,)), RouterReport((), (NODE,))]
    (told_back,) = modelhub("rm", "tiny", "--yes", "--json").json
    assert (told_back["freed_bytes"], told_back["trash"]["expires_at"]) == (0, "1970-01-01T01:16:40.000Z")
    away = replace(NODE, status=NodeStatus.OFFLINE)
    modelhub.client.script = [RouterReport((PLACED,), (away,)), RouterReport((), (away,))]
    result = modelhub("rm", "tiny", "--yes")
    assert result.out.endswith("brings it back. gpu-01 is offline; 1 kB there move to the trash when it is back.\n")


def test_rm_now_frees_at_once_and_says_so(modelhub: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    modelhub.client.say(PLACED)
    modelhub.client.kept = (KEPT,)
    asked: list[str] = []
    monkeypatch.setattr("modelhub_tui.cli.output.Console.confirm", lambda _, question: asked.append(question) or True)
    modelhub.client.then(())
    result = modelhub("rm", "tiny", "--now")
    assert (result.code, result.out) == (0, "Deleted tiny; 1 kB freed.\n")
    assert asked == ["Delete tiny (1 kB on gpu-01)? It cannot be undone."]
    assert modelhub.client.said == [{"cancel": False, "keep": False}]


def test_rm_leaves_alone_what_nobody_registered(modelhub: CommandLine) -> None:
    modelhub.client.say(FOUND)
    result = modelhub("rm", "tiny", "--yes")
    assert result.code == 1 and "`modelhub adopt tiny` registers it" in result.err
    assert modelhub.client.asked("delete") == []


# -- pull, status -----------------------------------------------------------------------------------------------------


def moving(phase: Phase, **members: object) -> tuple[object, ...]:
    return (told(transfers=(Transfer("gpu-01", phase, 400, 1000, **members),)),)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("step", "said"),
    [
        (
            moving(Phase.RETRYING, attempt=2, max_attempts=6, retry_in_s=4.0, stalled_s=12.0, error="Nothing arrived."),
            "Tiny Instruct  40%  400 B of 1 kB  stalled 12 s, retrying (2/6) in 4 s: Nothing arrived",
        ),
        (moving(Phase.FETCHING, stalled_s=12.0), "Tiny Instruct  40%  400 B of 1 kB  stalled 12 s"),
        (moving(Phase.VERIFYING), "Tiny Instruct  40%  400 B of 1 kB  verifying"),
        (
            moving(Phase.FETCHING, bytes_per_s=50.0, eta_s=12.0, file_index=2, file_count=5, refetched_bytes=100),
            "Tiny Instruct  40%  400 B of 1 kB  50 B/s  0:12  file 2/5  100 B fetched again",
        ),
        (
            (told(queue_position=3, transfers=(Transfer("gpu-01", Phase.WAITING, 0, 1000),)),),
            "Tiny Instruct queued (3rd in the queue: queued on gpu-01)",
        ),
    ],
)
def test_a_pull_says_honestly_what_happens(modelhub: CommandLine, step: tuple[object, ...], said: str) -> None:
    modelhub.client.then(step, (PLACED,))
    result = modelhub("pull", "tiny")
    assert result.code == 0 and said in result.err.splitlines()


def test_a_pull_for_which_there_is_no_room_says_so_first(modelhub: CommandLine) -> None:
    node = Node("n1", "gpu-01", NodeStatus.ONLINE, disk_free_bytes=2_500, disk_floor_bytes=600)
    modelhub.client.say(WAITING, nodes=(node,))
    modelhub.client.then((PLACED,))
    result = modelhub("pull", "tiny")
    assert result.err.splitlines()[:3] == [
        "modelhub: no room: needs 1 kB, free 2 kB, kept free 600 B, other queued 2 kB: short by 1 kB.",
        "It is fetched as far as there is room, and waits then.",
        "`modelhub local` shows what could go, `modelhub rm --now NAME` frees it.",
    ]
    assert result.code == 0 and len(modelhub.client.asked("register")) == 1


def test_no_wait_says_what_only_waits_and_where(modelhub: CommandLine) -> None:
    modelhub.client.then((FETCHING, WAITING))
    result = modelhub("pull", "tiny", "other", "--no-wait")
    assert result.code == 0
    assert result.err.splitlines() == [
        "tiny is being fetched. `modelhub status` shows how far it is.",
        "other is queued, 2nd in the queue. `modelhub status` shows how far it is.",
    ]
    lines = modelhub("pull", "tiny", "other", "--no-wait", "--json").json_lines
    assert [(each["state"], each["queue_position"]) for each in lines] == [("downloading", 1), ("queued", 2)]


def test_pulling_what_is_held_lets_it_go_on(modelhub: CommandLine) -> None:
    modelhub.client.say(HELD)
    modelhub.client.then((FETCHING,), (PLACED,))
    assert modelhub("pull", "tiny").out == "/m/tiny-Q4.gguf\n"
    assert modelhub.client.asked("resume", "register", "retry") == [("resume", "acme/tiny-gguf")]


def test_a_pull_that_somebody_holds_says_how_it_goes_on(modelhub: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("modelhub_tui.cli.pull.PAUSE_PATIENCE_S", 0.02)
    modelhub.client.then((FETCHING,), (HELD,))
    result = modelhub("pull", "tiny")
    assert result.code == 1
    assert result.err.splitlines()[-1] == "modelhub: tiny is paused. `modelhub resume tiny` lets it go on."


def test_status_shows_the_queue_and_what_nobody_works_on(modelhub: CommandLine) -> None:
    lost = told(transfers=(Transfer("gpu-09", Phase.FETCHING, 400, 1000, 7.0, orphaned=True),), queue_position=2)
    node = replace(NODE, models_bytes=5_000, trash_bytes=2_000)
    modelhub.client.say(lost, replace(WAITING, queue_position=1, paused=True), nodes=(node,))
    result = modelhub("status", "--router", "http://r:1")
    rows = [line.split() for line in result.out.splitlines()]
    assert rows[-2][:3] == ["paused", "1", "other"]
    assert rows[-1][:4] == ["failed", "2", "tiny", "40%"] and "7" not in rows[-1]
    assert "5 kB of models, 2 kB in the trash" in result.out
    assert "Restart with `modelhub pull tiny`, forget with `modelhub rm tiny --cancel`." in result.err


def test_status_says_address_and_version_of_a_router_once(modelhub: CommandLine) -> None:
    told_by = modelhub.client.router
    modelhub.client.router = replace(told_by, label="modelhub 0.1.0 at r:1", url="http://r:1", version="0.1.0")
    out = modelhub("status", "--router", "http://r:1").out
    assert "Router   modelhub 0.1.0 at http://r:1\n" in out
    modelhub.client.router = replace(told_by, label="this machine", url="http://r:1", version="0.1.0")
    assert "Router   this machine at http://r:1, version 0.1.0\n" in modelhub("status", "--router", "http://r:1").out


def test_status_json_tells_the_whole_transfer(modelhub: CommandLine) -> None:
    transfer = Transfer(
        "gpu-01", Phase.RETRYING, 400, 1000, error_code="stalled", stalled_s=12.0, refetched_bytes=7,
        attempt=2, max_attempts=6, retry_in_s=4.0, history=(Event(100.0, "stalled at 400 B"),),
    )  # fmt: skip
    modelhub.client.say(
        told(transfers=(transfer,), queue_position=1), nodes=(replace(NODE, models_bytes=5, found_bytes=6),)
    )
    told_back = modelhub("status", "--json", "--router", "http://r:1").json
    (model,) = told_back["transfers"]
    assert model["queue_position"] == 1 and model["paused"] is False
    assert model["history"] == [{"at": "1970-01-01T00:01:40.000Z", "what": "stalled at 400 B"}]
    assert model["progress"].items() >= {
        "error_code": "stalled", "stalled_s": 12.0, "refetched_bytes": 7, "attempt": 2, "max_attempts": 6,
        "retry_in_s": 4.0, "orphaned": False,
    }.items()  # fmt: skip
    [on_node] = told_back["nodes"]
    assert (on_node["models_bytes"], on_node["found_bytes"], on_node["unfinished_bytes"]) == (5, 6, None)
