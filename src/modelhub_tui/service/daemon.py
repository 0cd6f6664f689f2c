"""The service's process: lock, log, socket, router, node; and how it ends."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import logging
import os
import secrets
import signal
import socket
import sqlite3
import sys
import time
import uuid
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from modelhub_tui import __version__, hf_env, own_socket
from modelhub_tui.catalog import load_catalog
from modelhub_tui.config import Settings, child_env
from modelhub_tui.errors import BadCatalog, BadSettings, ModelHubError, ServiceFailed, explain
from modelhub_tui.identifiers import plain_number, whole_number
from modelhub_tui.own_folder import cannot_use, is_own_dir, prepare_dir
from modelhub_tui.service.listen import LOOPBACK, WAITING, listen, local_url
from modelhub_tui.service.logs import start_log
from modelhub_tui.service.router.blocking import run_blocking
from modelhub_tui.service.statefile import (
    DATABASE,
    LOCK_FILE,
    LOG_FILE,
    STATE_FILE,
    Lock,
    ServiceState,
    identity_of,
    remove_state,
    write_state,
)
from modelhub_tui.service.supervise import HUNG_S, NODE_COMMAND, Supervisor
from modelhub_tui.untrusted import clean

if TYPE_CHECKING:
    from modelhub_tui.domain import CatalogEntry
    from modelhub_tui.service.connections import Bounds
    from modelhub_tui.service.router.auth import Hosts
    from modelhub_tui.service.router.store import Store

log = logging.getLogger(__name__)

IDLE_EXIT_S = 15 * 60.0
CLOSING_S = 1
"""Longest wait, in seconds, for answers under way when the service ends."""
_LOCK_PATIENCE_S = 0.5
_WARM_UP_AFTER_S = 2.0


def run(
    settings: Settings,
    *,
    host: str,
    port: int,
    foreground: bool,
    api_key: str | None,
    ready: Callable[[], None] = lambda: None,
) -> int:
    """Run the service until it is told to stop; returns the exit code. See `lifecycle.serve`.

    Args:
        ready: Called once the service answers.

    Raises:
        BadSettings: It would let other machines in without a key, or the key, or a variable of the HuggingFace library
            cannot be used.
        ServiceFailed: It cannot start.
    """
    if host not in LOOPBACK and not api_key:
        raise BadSettings(
            f"Listening on {host} lets other machines in, so it needs a key."
            " Give one with --api-key-file or MODELHUB_API_KEY."
        )
    if api_key is not None and not (api_key.isascii() and api_key.isprintable() and " " not in api_key):
        raise BadSettings("The API key has characters that HTTP cannot carry. Use letters, digits and punctuation.")
    hf_env.check()
    metrics_for()
    prepare_dir(settings.state_dir)
    is_own_dir(settings.state_dir / "node")  # this process reads its record, too
    # Never let go of: the process's end does that, and then nothing of it is left.
    _lock(settings.state_dir)
    streams = sys.stdout, sys.stderr
    try:
        return _run_locked(settings, host, port, foreground, api_key, ready)
    finally:
        if foreground:  # whoever started us has the last word, on its own terminal
            sys.stdout, sys.stderr = streams


def _lock(state_dir: Path) -> None:
    """Become the one service of this folder.

    Raises:
        ServiceFailed: There is one already.
    """
    lock = Lock(state_dir / LOCK_FILE)
    deadline = time.monotonic() + _LOCK_PATIENCE_S
    # Those who only look whether the lock is held share it for an instant: try more than once.
    while not lock.acquire():
        if time.monotonic() > deadline:
            holder = lock.holder()
            lock.close()
            who = f" (process {holder})" if holder else ""
            raise ServiceFailed(
                f"A modelhub service already runs in {state_dir}{who}.", "Use it, or stop it with `modelhub stop`."
            )
        time.sleep(0.01)


def _run_locked(
    settings: Settings, host: str, port: int, foreground: bool, api_key: str | None, ready: Callable[[], None]
) -> int:
    from modelhub_tui.service.router import rows
    from modelhub_tui.service.router.auth import Hosts
    from modelhub_tui.service.router.store import Store, StoreFailed, StoreTooNew

    open_metrics = metrics_for() == "open"
    try:
        formatter = start_log(settings.state_dir / LOG_FILE, foreground=foreground, fds=() if foreground else (1, 2))
    except OSError as error:
        raise cannot_use(settings.state_dir / LOG_FILE, error) from error
    try:
        catalog = load_catalog(settings.catalog, settings.cache_dir)
    except BadCatalog as error:
        advice = explain(error)
        raise ServiceFailed(advice.what, advice.todo) from error
    try:
        store = Store(settings.state_dir / DATABASE)
    except StoreTooNew as error:
        raise ServiceFailed(
            str(error), "Use that version, or choose another folder with MODELHUB_STATE_DIR."
        ) from error
    except StoreFailed as error:
        raise ServiceFailed(
            error.reason, "Check its owner and the free space, or choose another folder with MODELHUB_STATE_DIR."
        ) from error
    try:
        try:
            # New ones for each run: what somebody may have learned of an earlier one opens nothing.
            admin_key, node_key = api_key or secrets.token_urlsafe(32), secrets.token_urlsafe(32)
            for kept in ("admin_key", "node_key"):  # of versions before
                if store.get_meta(kept) is not None:
                    store.apply_now([rows.drop_meta(kept)])
            formatter.secrets += [admin_key, node_key, os.environ.get("HF_TOKEN", "")]
            last_port = store.get_meta("port") or ""
            listener = listen(host, port, whole_number(last_port, 65535) or 0)
            port = listener.getsockname()[1]
            if last_port != str(port):
                store.apply_now([rows.put_meta("port", str(port))])
        except StoreFailed as error:
            raise ServiceFailed(
                error.reason, "Check its owner and the free space, or choose another folder with MODELHUB_STATE_DIR."
            ) from error
        state = ServiceState(
            pid=os.getpid(),
            url=local_url(host, port),
            state_id=uuid.uuid4().hex,
            identity=identity_of(settings, __version__),
            key=admin_key,
            node_key=node_key,
            notice=" ".join(filter(None, (store.notice, _node_notice(settings.state_dir)))),
            stays=foreground,
        )
        listeners = [listener, own_socket.listen(settings.state_dir)]
        idle_exit_s = _idle_exit_s(foreground)
        service = Service(
            settings,
            state,
            store,
            listeners,
            hosts=Hosts.for_bind(host, port),
            idle_exit_s=idle_exit_s,
            ready=ready,
            open_metrics=open_metrics,
        )
        if not foreground:
            # The end of the terminal, or of the SSH session, that happened to start us is not ours.
            signal.signal(signal.SIGHUP, signal.SIG_IGN)
        return asyncio.run(service.run(catalog))
    finally:
        store.close()


def _node_notice(state_dir: Path) -> str:
    """What had to be done to the record of this machine's node, in one sentence; empty if nothing."""
    from modelhub_tui.service.node.record import mended
    from modelhub_tui.service.unfinished import NODE_DATABASE

    path = state_dir / NODE_DATABASE
    if not path.parent.is_dir():
        return ""
    try:
        db, notice = mended(path)
        db.close()
    except (OSError, sqlite3.Error) as error:
        log.warning("the node's record: %s", error)  # the node says so itself
        return ""
    return notice


class Service:
    """One run of the service, on its event loop."""

    def __init__(
        self,
        settings: Settings,
        state: ServiceState,
        store: Store,
        listeners: list[socket.socket],
        *,
        hosts: Hosts,
        idle_exit_s: float | None,
        ready: Callable[[], None],
        open_metrics: bool = False,
    ) -> None:
        self._settings, self._state, self._store, self._listeners = settings, state, store, listeners
        self._hosts, self._idle_exit_s, self._ready = hosts, idle_exit_s, ready
        self._open_metrics = open_metrics

    async def run(self, catalog: tuple[CatalogEntry, ...]) -> int:
        """Serve until a signal, `POST /v0/service/stop` or idleness ends it."""
        import uvicorn

        from modelhub_tui.service.connections import ACCEPTED_AT_ONCE, BoundedProtocol, Dated, have_room
        from modelhub_tui.service.router.app import create_app
        from modelhub_tui.service.router.auth import Use
        from modelhub_tui.service.router.core import Router

        have_room()
        self._stopping = asyncio.Event()
        self._use = Use()
        loop = asyncio.get_running_loop()
        ends = [signal.SIGTERM, signal.SIGINT]
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
            ends.append(signal.SIGHUP)
        for sign in ends:
            loop.add_signal_handler(sign, self._stopping.set)
        router = Router(
            self._store,
            catalog,
            self._settings.hf_endpoint,
            stats_dir=self._settings.cache_dir / "hub-stats",
            catalog_dir=self._settings.cache_dir,
            limits=self._settings.limits,
        )
        self._router = router
        state = self._state
        app = create_app(
            router,
            admin_key=state.key,
            node_key=state.node_key,
            hosts=self._hosts,
            state_id=state.state_id,
            stop=self._asked_to_stop,
            use=self._use,
            open_metrics=self._open_metrics,
        )
        config = uvicorn.Config(
            Dated(app),
            http=BoundedProtocol,
            lifespan="off",
            ws="none",
            log_config=None,
            access_log=False,
            server_header=False,
            date_header=False,
            proxy_headers=False,
            timeout_keep_alive=75,
            timeout_graceful_shutdown=CLOSING_S,
            backlog=ACCEPTED_AT_ONCE,
        )
        server = self._server = _server_until(self._stopping, self._closing, self._announce)(config)
        router.fleet.expects_own = True
        router.start()
        self._supervisor = Supervisor(
            self._node_env(),
            lost=router.fleet.lose_supervised,
            command=_node_command(),
            heard_at=lambda: router.fleet.supervised_heard_at,
            hung_s=_seconds("MODELHUB_NODE_HUNG_S", HUNG_S),
        )
        try:
            await server.serve(sockets=self._listeners)
        finally:
            remove_state(self._settings.state_dir, state.state_id)
            with contextlib.suppress(OSError):
                own_socket.remove(self._settings.state_dir)
            await self._supervisor.stop()
            await router.stop()
            log.info("stopped")
        return 0

    async def _announce(self) -> None:
        """Everything is set up: tell the world, then start the node."""
        for each in self._listeners:
            # The loop's own number says how many it takes at once; as many more may wait as the system allows.
            each.listen(WAITING)
        try:
            await run_blocking(lambda: write_state(self._settings.state_dir, self._state), "state file")
        except OSError as error:
            raise cannot_use(self._settings.state_dir / STATE_FILE, error) from error
        log.info("modelhub %s serves %s (process %d)", __version__, self._state.url, os.getpid())
        self._ready()
        self._supervisor.start()
        loop = asyncio.get_running_loop()
        self._store.on_notice = lambda: loop.call_soon_threadsafe(self._tell_notice)
        loop.call_later(_WARM_UP_AFTER_S, _warm_up)
        if self._idle_exit_s is not None:
            self._idle_task = asyncio.create_task(self._exit_when_idle(self._idle_exit_s))

    def _connections(self) -> list[Bounds]:
        return [*self._server.server_state.connections]

    def _tell_notice(self) -> None:
        """Put into the state file, too, what the store had to repair while it ran."""
        state = self._state = replace(self._state, notice=self._store.notice)

        def write() -> None:
            try:
                write_state(self._settings.state_dir, state)
            except OSError as error:
                log.warning("the state file cannot be written (%s)", error.strerror)

        self._telling = asyncio.create_task(run_blocking(write, "state file"))

    def _closing(self) -> None:
        """Let waiting readers go, so that their connections can end."""
        self._router.changes.close()

    def _asked_to_stop(self, if_idle: bool, asker: int) -> str:
        """Stop soon and return ""; else what speaks against it, as `Endpoints` has it."""
        if if_idle and self._router.busy:
            return "busy"
        if if_idle and (self._use.about_to_be_used(asker) or any(each.follows for each in self._connections())):
            return "in_use"
        log.info("asked to stop")
        # After the answer has left.
        asyncio.get_running_loop().call_later(0.05, self._stopping.set)
        return ""

    async def _exit_when_idle(self, after_s: float) -> None:
        """Exit once nobody has asked and nothing was to do for long enough."""
        while True:
            router = self._router
            if router.busy or self._use.active or router.fleet.outsiders_online:
                self._use.touch()
            left_s = self._use.last_at + after_s - time.monotonic()
            if left_s <= 0:
                log.info("nobody has asked for %.0f s and there is nothing to do", after_s)
                self._stopping.set()
                return
            await asyncio.sleep(min(left_s, max(after_s / 10, 0.05)))

    def _node_env(self) -> dict[str, str]:
        return {
            **os.environ,
            "MODELHUB_ROUTER": self._state.url,
            "MODELHUB_API_KEY": self._state.node_key,
            "MODELHUB_NODE_DOOR": str(self._settings.state_dir),
            **child_env(self._settings, os.environ),
        }


def _server_until(stopping: asyncio.Event, closing: Callable[[], None], announce: Callable[[], Awaitable[None]]):  # type: ignore[no-untyped-def]
    """uvicorn's server, ended by an event: its own loop wakes ten times a second, and its signal handling re-raises."""
    import uvicorn

    class Server(uvicorn.Server):
        @contextlib.contextmanager
        def capture_signals(self) -> Iterator[None]:
            yield

        async def main_loop(self) -> None:
            await announce()
            await self.on_tick(0)
            await stopping.wait()
            closing()

    return Server


def _idle_exit_s(foreground: bool) -> float | None:
    """Seconds without use after which the service exits; None means never."""
    said = os.environ.get("MODELHUB_IDLE_EXIT_S", "").strip()
    seconds = plain_number(said)
    if said and seconds is None:
        log.warning("MODELHUB_IDLE_EXIT_S is no number of seconds; the default is used")
    if seconds is None:
        seconds = 0.0 if foreground else IDLE_EXIT_S
    return seconds or None


def metrics_for() -> str:
    """Who may read `GET /metrics`: `key`, or `open` to everybody who can connect.

    Raises:
        BadSettings: MODELHUB_METRICS says something else.
    """
    said = os.environ.get("MODELHUB_METRICS") or "key"
    if said not in ("key", "open"):
        raise BadSettings(f"MODELHUB_METRICS is {clean(said, 40)!r}; it can be key, which is the default, or open.")
    return said


def _seconds(name: str, default: float) -> float:
    """A number of seconds from the environment, for tests; the default if it is none."""
    return plain_number(os.environ.get(name)) or default


def _node_command() -> tuple[str, ...]:
    return NODE_COMMAND


def _warm_up() -> None:
    """Import what the first registration needs, beside the loop: half a second that nobody then waits for."""
    import threading

    def work() -> None:
        from modelhub_tui.service.router.hub import prepare

        with contextlib.suppress(ImportError):
            prepare()

    threading.Thread(target=work, name="warm-up", daemon=True).start()


def tell(fd: int, message: dict[str, object]) -> None:
    """Say one line to the process that started us; it may have gone."""
    if fd < 0:
        return
    with contextlib.suppress(OSError):
        os.write(fd, json.dumps(message).encode() + b"\n")
    with contextlib.suppress(OSError):
        os.close(fd)


def main(settings: Settings, ready_fd: int) -> int:
    """Run detached, started by `lifecycle.ensure_service`."""

    def ready() -> None:
        tell(ready_fd, {"ok": True})
        # What the start made stays for good; from here on the collector has little to look at.
        gc.freeze()
        gc.enable()

    try:
        return run(
            settings,
            host="127.0.0.1",
            port=0,
            foreground=False,
            api_key=None,
            ready=ready,
        )
    except ModelHubError as error:
        advice = explain(error)
        tell(ready_fd, {"error": advice.what, "todo": advice.todo})
        log.error("%s", advice)
        return 1
    except BaseException:
        log.exception("the service failed")
        tell(
            ready_fd,
            {"error": "The service failed unexpectedly.", "todo": f"Its log is {settings.state_dir / LOG_FILE}."},
        )
        return 1


def exit_now(code: int) -> None:
    """Leave without joining threads: one may still wait for a hub that never answers."""
    logging.shutdown()
    with contextlib.suppress(Exception):
        sys.stdout.flush()
    os._exit(code)
