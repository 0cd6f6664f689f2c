"""The same behaviour over every generation and our own service: through the client and on the command line."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from modelhub_tui.cli import main
from modelhub_tui.client.auth import Credentials, login
from modelhub_tui.client.base import DownloadRequest, RegisterRequest, RouterClient
from modelhub_tui.client.detect import open_router
from modelhub_tui.domain import Ability, Limits, Model, ModelState, NodeStatus, Place
from modelhub_tui.errors import (
    AlreadyRegistered,
    Forbidden,
    ModelHubError,
    NotARouter,
    NotFound,
    NotSupported,
    Rejected,
    RouterFault,
    Unauthorised,
    Unreachable,
    explain,
)
from modelhub_tui.states import join_models
from tests.routers import dying, hanging, huge, login_proxy, lying, ollama, web_page
from tests.routers.models import ADMIN_PASSWORD
from tests.routers.worlds import (
    CATALOG,
    FILE,
    GENERATIONS,
    NAME,
    OTHER,
    OTHER_FILE,
    OTHER_REPO,
    REPO,
    SIZE,
    World,
    open_world,
)

REGISTER = RegisterRequest(REPO, FILE, title="Phi-3 Mini")


@pytest.fixture(params=GENERATIONS)
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    """Each generation in turn."""
    with open_world(request.param, tmp_path) as opened:
        yield opened


@pytest.fixture(params=["G1", "G2", "G3", "G4"])
def upstream(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    """Those with users who log in."""
    with open_world(request.param, tmp_path) as opened:
        yield opened


@asynccontextmanager
async def opened(url: str, key: str | None = None, token: str | None = None) -> AsyncIterator[RouterClient]:
    """A client for whatever answers there."""
    client = await open_router(url, Credentials(key, token))
    try:
        yield client
    finally:
        await client.aclose()


async def models(client: RouterClient) -> dict[str, Model]:
    """What the UI would show, by repo in lower case."""
    return {each.repo.lower(): each for each in join_models(CATALOG, await client.report())}


async def state(client: RouterClient, name: str = NAME) -> ModelState:
    """The state of one model."""
    return (await models(client))[name].state


# -- who answers


async def test_it_is_recognised_and_offers_what_it_can_do(world: World) -> None:
    world.add_node()
    async with opened(world.url, world.key) as client:
        if world.generation == "G2":
            world.fetching(NAME, 1)
        await client.report()
        info = await client.info()
    assert (info.generation, info.url) == (world.generation, world.url)
    labels = {"G1": "llm-router (nodes)", "G2": "llm-router (nodes)", "G3": "llmlb (endpoints)", "G4": "llmlb 5.7.1"}
    assert info.label.startswith(labels.get(world.generation, "modelhub"))
    assert info.abilities >= world.abilities
    unable = {Ability.RETRY, Ability.DELETE_ON_NODE, Ability.APPROVE} - world.abilities
    assert not info.abilities & unable - ({Ability.APPROVE} if world.generation == "local" else set())


async def test_the_catalog_is_available_before_anything_is_registered(world: World) -> None:
    async with opened(world.url, world.key) as client:
        shown = (await models(client))[NAME]
    assert (shown.state, shown.catalog_id, shown.registered) == (ModelState.AVAILABLE, "phi-3-mini", False)


async def test_its_node_or_endpoint_is_listed(world: World) -> None:
    world.add_node()
    async with opened(world.url, world.key) as client:
        (node,) = (await client.report()).nodes
    assert (node.name, node.status, node.id) == ("gpu-01", NodeStatus.ONLINE, world.node.id)
    assert node.kind == ("node" if world.has_nodes else "endpoint")
    assert node.last_seen is not None
    if world.has_nodes:
        assert node.gpu_memory_bytes == 25757220864
    else:
        assert node.software == world.node.endpoint_type


# -- a model's life


async def test_registering_sends_repo_and_file_and_is_listed(world: World) -> None:
    async with opened(world.url, world.key) as client:
        told = await client.register(REGISTER)
        assert (told.name, told.file) == (NAME, FILE)
        shown = await models(client)
        assert shown[NAME].registered and shown[NAME].catalog_id == "phi-3-mini"
        await client.register(RegisterRequest(OTHER_REPO, OTHER_FILE))
        other = (await models(client))[OTHER]
        assert (other.registered, other.repo, other.file) == (True, OTHER_REPO, OTHER_FILE)
    if world.generation != "local":
        first, second = world.sent("/models/register")
        assert (first["repo"], first["filename"]) == (REPO, FILE)
        assert (second["repo"], second["filename"]) == (OTHER_REPO, OTHER_FILE)


async def test_a_model_goes_from_available_to_downloaded(world: World) -> None:
    world.add_node()
    async with opened(world.url, world.key) as client:
        await client.register(REGISTER)
        if Ability.PULL in world.abilities:
            assert await state(client) is ModelState.QUEUED
        if world.fetching(NAME, 250):
            moving = (await models(client))[NAME]
            assert moving.state is ModelState.DOWNLOADING and moving.transfer is not None
            assert (moving.transfer.bytes_done, moving.transfer.bytes_total) == (250, SIZE)
            assert moving.transfer.node == "gpu-01"
        world.holds(NAME)
        whole = (await models(client))[NAME]
        assert whole.state is ModelState.DOWNLOADED
        assert [(each.node, each.node_id) for each in whole.placements] == [("gpu-01", world.node.id)]


@pytest.mark.parametrize("world", ["G1", "G2", "local"], indirect=True)
async def test_a_path_that_a_stock_node_reports_counts_and_is_shown(world: World) -> None:
    world.add_node()
    async with opened(world.url, world.key) as client:
        await client.register(REGISTER)
        world.holds(NAME, path=True)
        whole = (await models(client))[NAME]
    assert whole.state is ModelState.DOWNLOADED
    assert whole.placements[0].path == f"/home/u/.llm-router/models/{NAME}/model.gguf"


async def test_deleting_ends_the_registration(world: World) -> None:
    async with opened(world.url, world.key) as client:
        await client.register(REGISTER)
        await client.delete(NAME)
        assert await state(client) is ModelState.AVAILABLE


async def test_queue_limits_trash_and_adoption_are_our_own_services_alone(world: World) -> None:
    async with opened(world.url, world.key) as client:
        await client.register(REGISTER)
        await client.report()
        ours = {Ability.PAUSE, Ability.ORDER, Ability.LIMITS, Ability.UNDO, Ability.ADOPT}
        asked: list[Callable[[], Awaitable[object]]] = [
            lambda: client.pause(NAME),
            lambda: client.move(NAME, Place.FIRST),
            lambda: client.resume(NAME),
            lambda: client.limits(),
            lambda: client.set_limits(Limits(parallel_transfers=3)),
            lambda: client.trash(),
            lambda: client.empty_trash(),
        ]
        if world.generation == "local":
            assert (await client.info()).abilities >= ours
            for ask in asked:
                await ask()
            assert await client.limits() == Limits(parallel_transfers=3)
            await client.pause(NAME)
            assert await state(client) is ModelState.PAUSED
            for name, code in ((client.restore, "not_in_trash"), (client.adopt, "not_on_disk")):
                with pytest.raises(Rejected) as refused:
                    await name("no/such")
                assert refused.value.code == code
            return
        assert not (await client.info()).abilities & ours
        asked += [lambda: client.restore(NAME), lambda: client.adopt(NAME)]
        for ask in asked:
            with pytest.raises(NotSupported) as caught:
                await ask()
            assert str(explain(caught.value)).startswith("This router cannot ")
        assert await state(client) is ModelState.QUEUED


async def test_an_old_progress_report_is_not_taken_for_a_download(tmp_path: Path) -> None:
    with open_world("G2", tmp_path) as world:
        world.add_node()
        async with opened(world.url, world.key) as client:
            await client.register(REGISTER)
            world.fetching(NAME, 250)
            assert await state(client) is ModelState.DOWNLOADING
            world.router.progress(world.node, NAME, SIZE, SIZE, state="success")
            assert await state(client) is ModelState.QUEUED  # "success" says nothing about the file
            world.fetching(NAME, 500)
            world.node.sync_updated_at -= 600  # heard of ten minutes ago
            assert await state(client) is ModelState.QUEUED


@pytest.mark.parametrize("generation", ["G1", "G2"])
async def test_a_delete_that_the_router_undoes_is_seen_again(generation: str, tmp_path: Path) -> None:
    with open_world(generation, tmp_path) as world:
        world.add_node()
        async with opened(world.url, world.key) as client:
            await client.register(REGISTER)
            await client.delete(NAME)
            assert await state(client) is ModelState.AVAILABLE
            world.router.clock.advance(300)
            world.router.heartbeat(world.node)
            assert (await models(client))[NAME].registered


async def test_g4_downloads_on_an_endpoint_and_deletes_there(tmp_path: Path) -> None:
    with open_world("G4", tmp_path) as world:
        world.add_node()
        async with opened(world.url, world.key) as client:
            await client.register(REGISTER)
            (node,) = (await client.report()).nodes
            assert node.takes_downloads and node.deletes
            await client.download(DownloadRequest(node.id, NAME, REPO))
            ordered = (await models(client))[NAME]
            assert ordered.state in (ModelState.DOWNLOADING, ModelState.QUEUED) and ordered.transfers
            (task,) = world.router.tasks
            world.router.run_task(task)
            world.router.sync(world.node)
            assert await state(client) is ModelState.DOWNLOADED
            held = world.node.inventory[0]
            await client.delete_on(node.id, held)
            world.router.sync(world.node)
            assert await state(client) is not ModelState.DOWNLOADED


async def test_g4_says_why_an_endpoint_takes_no_download(tmp_path: Path) -> None:
    with open_world("G4", tmp_path) as world:
        vllm = world.router.add_node("gpu-02", "vllm")
        async with opened(world.url, world.key) as client:
            (node,) = (await client.report()).nodes
            assert not node.takes_downloads and not node.deletes
            with pytest.raises(ModelHubError) as refused:
                await client.download(DownloadRequest(vllm.id, NAME, REPO))
    assert "download" in explain(refused.value).what.lower()


@pytest.mark.parametrize("generation", ["G1", "G2"])
async def test_a_pending_node_can_be_let_in(generation: str, tmp_path: Path) -> None:
    with open_world(generation, tmp_path) as world:
        node = world.router.add_node("new", status="pending")
        async with opened(world.url, world.key) as client:
            (seen,) = (await client.report()).nodes
            assert seen.status is NodeStatus.PENDING
            await client.approve(node.id)
            (seen,) = (await client.report()).nodes
            assert seen.status is NodeStatus.ONLINE
            with pytest.raises(ModelHubError):
                await client.approve(node.id)


# -- refusals


async def test_registering_twice_is_known(world: World) -> None:
    async with opened(world.url, world.key) as client:
        await client.register(REGISTER)
        with pytest.raises(AlreadyRegistered) as known:
            await client.register(REGISTER)
    assert known.value.name == NAME


async def test_deleting_what_is_unknown_is_not_found(world: World) -> None:
    async with opened(world.url, world.key) as client:
        with pytest.raises(NotFound):
            await client.delete("no/such")


async def test_a_refused_registration_is_one_sentence(world: World) -> None:
    async with opened(world.url, world.key) as client:
        for request in (RegisterRequest("no/such"), RegisterRequest(OTHER_REPO)):
            with pytest.raises(Rejected) as refused:
                await client.register(request)
            said = explain(refused.value).what
            assert said.endswith(".") and "Validation error" not in said and "{" not in said


async def test_a_wrong_key_is_unauthorised(world: World) -> None:
    with pytest.raises(Unauthorised):
        async with opened(world.url, "sk_wrong") as client:
            await client.report()


async def test_no_credential_is_unauthorised(world: World) -> None:
    with pytest.raises(Unauthorised):
        async with opened(world.url) as client:
            await client.report()


async def test_an_admins_token_opens_the_lists_and_is_never_sent_where_it_opens_nothing(upstream: World) -> None:
    upstream.add_node()
    async with opened(upstream.url, token=upstream.router.jwt()) as client:
        await client.register(REGISTER)
        upstream.holds(NAME)
        assert await state(client) is ModelState.DOWNLOADED
        await client.delete(NAME)
    asked = upstream.router.requests
    assert not [each.path for each in asked if each.path.startswith("/v1/") or "manifest" in each.path]
    assert not [each.path for each in asked if "authorization" in each.headers and "x-api-key" in each.headers]
    assert not [each.path for each in asked if "cookie" in each.headers]


async def test_a_viewers_token_is_told_what_it_may_not_see(upstream: World) -> None:
    """Endpoints are for everybody; lists of models and nodes are not."""
    upstream.add_node()
    async with opened(upstream.url, token=upstream.router.jwt(upstream.router.viewer)) as client:
        if upstream.has_nodes:
            with pytest.raises(Forbidden):
                await client.report()
            return
        try:
            report = await client.report()
        except Forbidden:
            return
        assert report.notices and [each.name for each in report.nodes] == ["gpu-01"]


async def test_an_expired_token_wants_a_new_login(upstream: World) -> None:
    token = upstream.router.jwt()
    async with opened(upstream.url, token=token) as client:
        await client.report()
        upstream.router.expire_tokens()
        with pytest.raises(Unauthorised) as expired:
            await client.report()
    advice = explain(expired.value)
    assert "log in" in f"{advice.what} {advice.todo}".lower()


async def test_logging_in_gives_a_token_that_opens_the_lists(upstream: World) -> None:
    session = await login(upstream.url, "admin", ADMIN_PASSWORD)
    assert (session.username, session.role, session.must_change_password) == ("admin", "admin", False)
    assert session.expires_at > upstream.router.clock()
    assert ADMIN_PASSWORD not in repr(session)
    async with opened(upstream.url, token=session.token) as client:
        await client.report()
    with pytest.raises(Unauthorised):
        await login(upstream.url, "admin", "wrong")


async def test_nobody_logs_in_at_our_own_service(tmp_path: Path) -> None:
    with open_world("local", tmp_path) as world, pytest.raises(NotSupported):
        await login(world.url, "admin", "anything")


async def test_g4_says_that_the_password_must_be_changed_first(tmp_path: Path) -> None:
    from modelhub_tui.errors import PasswordChangeNeeded

    with open_world("G4", tmp_path) as world:
        world.router.auth.add_user("new", "initial", must_change=True)
        session = await login(world.url, "new", "initial")
        assert session.must_change_password
        async with opened(world.url, token=session.token) as client:
            await client.report()
            with pytest.raises(PasswordChangeNeeded):
                await client.register(REGISTER)


@pytest.mark.parametrize("upstream", ["G1", "G2", "G3"], indirect=True)
async def test_without_authentication_a_router_is_recognised(upstream: World) -> None:
    upstream.router.auth.disabled = True
    upstream.add_node()
    async with opened(upstream.url) as client:
        if upstream.generation != "G3":
            with pytest.raises(Unauthorised):  # its two lists stay closed
                await client.report()
            return
        assert [each.name for each in (await client.report()).nodes] == ["gpu-01"]
        assert (await client.info()).generation == "G3"


async def test_models_of_providers_are_not_taken_for_local_ones(upstream: World) -> None:
    upstream.router.cloud_models = ["openai:gpt-4o"]
    upstream.add_node()
    async with opened(upstream.url, upstream.key) as client:
        assert [each.state for each in join_models(CATALOG, await client.report())] == [ModelState.AVAILABLE]


async def test_an_unreachable_hub_is_the_routers_trouble(upstream: World) -> None:
    upstream.router.hf.down = True
    async with opened(upstream.url, upstream.key) as client:
        with pytest.raises((RouterFault, Rejected)):
            await client.register(REGISTER)


# -- routers that fail, and servers that are none


async def test_a_router_that_dies_is_unreachable_and_comes_back(upstream: World) -> None:
    async with opened(upstream.url, upstream.key) as client:
        await client.register(REGISTER)
        upstream.router.down()
        with pytest.raises(Unreachable):
            await client.report()
        upstream.router.up()
        assert (await models(client))[NAME].registered


@pytest.mark.parametrize(("made", "word"), [(web_page, "web page"), (ollama, "Ollama"), (login_proxy, "sends us on")])
async def test_what_is_no_router_is_called_by_its_name(made: Any, word: str) -> None:
    with made() as server:
        with pytest.raises(NotARouter) as found:
            async with opened(server.url, "sk_key") as client:
                await client.info()
                await client.report()
        assert word.lower() in explain(found.value).what.lower()


async def test_nobody_there_is_unreachable() -> None:
    server = web_page()
    server.down()
    with pytest.raises(Unreachable):
        async with opened(server.url, "sk_key") as client:
            await client.info()


async def test_a_server_that_never_answers_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    _be_impatient(monkeypatch)
    with hanging() as server, pytest.raises(Unreachable):
        async with opened(server.url, "sk_key") as client:
            await client.report()


@pytest.mark.parametrize("declared", [True, False])
async def test_a_hundred_megabytes_are_not_read(declared: bool) -> None:
    with huge(100_000_000, declared=declared) as server, pytest.raises((RouterFault, NotARouter)):
        async with opened(server.url, "sk_key") as client:
            await client.info()
            await client.report()


async def test_answers_that_break_off_are_one_of_our_errors() -> None:
    with dying() as server, pytest.raises(ModelHubError):
        async with opened(server.url, "sk_key") as client:
            await client.info()
            await client.report()


@pytest.mark.parametrize("generation", ["G1", "G2", "G3", "G4"])
async def test_lies_never_break_the_client(generation: str) -> None:
    with lying(generation) as server:
        try:
            async with opened(server.url, "sk_key") as client:
                report = await client.report()
        except ModelHubError as refused:
            assert explain(refused).what  # one sentence is as good as what could be read
            return
    shown = repr(join_models(CATALOG, report)) + repr(report.nodes)
    assert "\\x1b" not in shown and "\\u202e" not in shown


@pytest.mark.parametrize("path", ["/models", "/models/hub", "/nodes", "/endpoints", "/v1/models"])
async def test_one_broken_answer_never_breaks_the_client(upstream: World, path: str) -> None:
    from tests.routers.base import Request, Response

    upstream.add_node()
    wrong: list[bytes] = [
        b"",
        b"null",
        b"7",
        b'"x"',
        b"{}",
        b"[null]",
        b"[[]]",
        b'{"data": 3}',
        b"\xff\xfe",
        b"[" * 9000,
    ]
    async with opened(upstream.url, upstream.key) as client:
        await client.register(REGISTER)
        await client.report()
        for body in wrong:

            def lie(request: Request, body: bytes = body) -> Response | None:
                return Response(200, body) if request.path.endswith(path) else None

            upstream.router.intercept = lie
            try:
                await client.report()
            except ModelHubError as refused:
                assert explain(refused).what
        upstream.router.intercept = None
        assert (await models(client))[NAME].registered


def _be_impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give up after a fraction of a second, where a person would wait for ten."""
    from modelhub_tui.client import transport

    once = transport.RouterHttp._once

    async def soon(self: Any, method: str, path: str, body: Any, headers: Any, read_s: float, *more: Any) -> Any:
        return await once(self, method, path, body, headers, 0.2, *more)

    monkeypatch.setattr(transport.RouterHttp, "_once", soon)


# -- the command line


class Line:
    """Runs `modelhub --router URL` in this process."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, world: World, *argv: str, key: str | None = None) -> tuple[int, str, str]:
        code = main([*argv, "--router", world.url, "--api-key", key or world.key])
        said = self._capsys.readouterr()
        return code, said.out, said.err

    def json(self, world: World, *argv: str) -> Any:
        code, out, err = self(world, *argv, "--json")
        assert code == 0, err
        return json.loads(out)


@pytest.fixture
def modelhub(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Line:
    """The command, with one supported model."""
    for module in ("listing", "pull", "remove", "status"):
        monkeypatch.setattr(f"modelhub_tui.cli.{module}.load_catalog", lambda *_: CATALOG)
    return Line(capsys)


def _listed(modelhub: Line, world: World) -> dict[str, dict[str, Any]]:
    return {each["repo"].lower(): each for each in modelhub.json(world, "list")}


def test_list_register_status_and_rm_on_the_command_line(world: World, modelhub: Line) -> None:
    assert _listed(modelhub, world)[NAME]["state"] == "available"
    told = modelhub.json(world, "register", OTHER_REPO, "--file", OTHER_FILE)
    assert (told["name"], told["file"], told["new"]) == (OTHER, OTHER_FILE, True)
    assert modelhub.json(world, "register", OTHER_REPO, "--file", OTHER_FILE)["new"] is False
    assert OTHER in _listed(modelhub, world)
    world.add_node()
    status = modelhub.json(world, "status")
    assert status["mode"] == "remote" and status["router"]["url"] == world.url
    assert [each["name"] for each in status["nodes"]] == ["gpu-01"]
    (gone,) = modelhub.json(world, "rm", OTHER, "--yes")
    assert gone["deleted"]
    assert OTHER not in _listed(modelhub, world)
    assert modelhub(world, "rm", "no-such", "--yes")[0] == 5


@pytest.mark.parametrize("world", ["G1", "G2", "local"], indirect=True)
def test_pull_on_the_command_line(world: World, modelhub: Line) -> None:
    world.add_node()
    code, _, err = modelhub(world, "pull", "phi-3-mini", "--no-wait")
    assert code == 0, err
    assert _listed(modelhub, world)[NAME]["state"] == "queued"
    world.holds(NAME)
    code, _, err = modelhub(world, "pull", "phi-3-mini")
    assert code == 0 and "is downloaded" in err
    assert [each["name"] for each in modelhub.json(world, "local")] == [NAME]


def test_refusals_on_the_command_line(world: World, modelhub: Line) -> None:
    code, _, err = modelhub(world, "list", key="sk_wrong")
    assert code == 4 and "Traceback" not in err
    code, _, err = modelhub(world, "register", "no/such")
    # Only our own service tells the kinds of refusal apart.
    assert code == (5 if world.generation == "local" else 1)
    assert "Validation error" not in err and "{" not in err


@pytest.mark.parametrize("made", [web_page, ollama, login_proxy, dying, lying])
def test_the_command_line_says_one_sentence_about_what_is_no_router(made: Any, modelhub: Line) -> None:
    with made() as server:
        code = main(["list", "--router", server.url, "--api-key", "sk_key"])
    said = modelhub._capsys.readouterr()
    assert "Traceback" not in said.err
    assert code in (0, 1, 3) and (code == 0 or said.err.strip())
