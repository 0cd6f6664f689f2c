"""One machine with the real service on it: its folders, its processes, and what a user asks of it over the API."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import psutil

from modelhub_tui.config import Settings
from modelhub_tui.service.lifecycle import ServiceInfo, find_service
from modelhub_tui.service.statefile import lock_holder
from tests.hub import LoopbackHub
from tests.node.harness import QUICK

T = TypeVar("T")

PATIENCE_S = 60.0
"""How long to wait for what surely comes, on a machine that is busy with other things."""

CATALOG = """
schema: 1
models:
  - id: other-7b
    name: Other 7B
    description: A model that is never pulled here.
    repo: acme/Other-7B-GGUF
    files: [{path: other-7b-Q4_K_M.gguf, size_bytes: 4000000000}]
    quantization: Q4_K_M
    license: mit
    tags: [chat]
    capabilities: [text_generation]
    format: gguf
"""
_OURS = ("MODELHUB_", "HF_", "HUGGING_FACE_", "HUGGINGFACE_")


class Refused(Exception):
    """The service answered with an error."""

    def __init__(self, status: int, body: Any) -> None:
        super().__init__(f"{status}: {body}")
        self.status, self.body = status, body
        self.code = body.get("code") if isinstance(body, dict) else None
        self.sentence = body.get("error", "") if isinstance(body, dict) else str(body)


class Line:
    """One client's connection to a service, made anew when it is lost. For one thread."""

    def __init__(self) -> None:
        self._http: http.client.HTTPConnection | None = None

    def ask(
        self, info: ServiceInfo | None, method: str, path: str, body: object = None, *, timeout_s: float = 30.0
    ) -> Any:
        """One request with the admin key; the parsed answer. `info` None is a service that is down.

        Raises:
            Refused: An error status.
            OSError: Nobody answers.
        """
        if info is None:
            self.close()
            raise ConnectionRefusedError("the service is down")
        host, _, port = info.url.removeprefix("http://").partition(":")
        if self._http is not None and self._http.port != int(port):
            self.close()
        if self._http is None:
            self._http = http.client.HTTPConnection(host, int(port), timeout=timeout_s)
        data = None if body is None else json.dumps(body).encode()
        headers = {"Authorization": f"Bearer {info.key}"} | ({"Content-Type": "application/json"} if data else {})
        try:
            self._http.request(method, path, data, headers)
            answer = self._http.getresponse()
            raw = answer.read()
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise error if isinstance(error, OSError) else ConnectionResetError(str(error)) from error
        try:
            told = json.loads(raw) if raw else None
        except ValueError:
            told = raw.decode(errors="replace")
        if answer.status >= 400:
            raise Refused(answer.status, told)
        return told

    def close(self) -> None:
        if self._http is not None:
            self._http.close()
            self._http = None


class Machine:
    """The service of one state folder, started as `modelhub` starts it. Use as a context manager.

    Args:
        home: State, caches and log go below it.
        hub: Any endpoint; the process is told no other.
        tuning: Of the node, on top of `QUICK`.
        env: More of the service's environment.
        cache: The model folder, if it is to be elsewhere.
        whims: It can be given another clock and a slow disk, by `whim()`.
        wrap: Put before the service's command line, to start it as somebody else or somewhere else.
    """

    def __init__(
        self,
        home: Path,
        hub: LoopbackHub | str,
        *,
        tuning: Mapping[str, Any] | None = None,
        env: Mapping[str, str] | None = None,
        cache: Path | None = None,
        wrap: Iterable[str] = (),
        whims: bool = False,
    ) -> None:
        self.home, self.hub, self.wrap = home, hub, (*wrap,)
        self.tuning = {**QUICK, **(tuning or {})}
        self.more_env = dict(env or {})
        self.whims = whims
        home.mkdir(parents=True, exist_ok=True)
        self.catalog = home / "catalog.yaml"
        self.catalog.write_text(CATALOG)
        self.cache = cache or home / "hub"
        self.info: ServiceInfo | None = None
        self._process: subprocess.Popen[bytes] | psutil.Process | None = None
        self._line = Line()

    # -- life

    @property
    def settings(self) -> Settings:
        """What `modelhub` on this machine reads from its environment."""
        endpoint = self.hub if isinstance(self.hub, str) else self.hub.url
        return Settings(
            state_dir=self.home / "state",
            cache_dir=self.home / "cache",
            hub_cache=self.cache,
            hf_endpoint=endpoint,
            catalog=self.catalog,
        )

    @property
    def env(self) -> dict[str, str]:
        """The environment of everything that runs on this machine."""
        local = "127.0.0.1,localhost,::1"
        settings = self.settings
        return {
            **{name: value for name, value in os.environ.items() if not name.startswith(_OURS)},
            "HOME": str(self.home),
            "HF_HOME": str(self.home / "hf"),
            "HF_ENDPOINT": settings.hf_endpoint,
            "HF_HUB_CACHE": str(settings.hub_cache),
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "NO_PROXY": local,
            "no_proxy": local,
            "MODELHUB_STATE_DIR": str(settings.state_dir),
            "MODELHUB_CACHE_DIR": str(settings.cache_dir),
            "MODELHUB_CATALOG": str(self.catalog),
            "MODELHUB_NODE_TUNING": json.dumps(self.tuning),
            **(self._whims if self.whims else {}),
            **self.more_env,
        }

    @property
    def _whims(self) -> dict[str, str]:
        files = {f"MODELHUB_TEST_{each.upper()}": str(self.home / each) for each in ("skew", "slow")}
        path = [str(Path(__file__).with_name("hooks")), *filter(None, [os.environ.get("PYTHONPATH")])]
        return {"PYTHONPATH": os.pathsep.join(path), **files}

    def whim(self, which: str, seconds: float) -> None:
        """Let the clock be ahead (`skew`), or every durable write take longer (`slow`), from now on.

        The machine must have been made with `whims`.
        """
        assert self.whims
        (self.home / which).write_text(str(seconds))

    def __enter__(self) -> Machine:
        return self.start()

    def __exit__(self, *exc: object) -> None:
        self.stop()
        assert self.processes() == [], "processes were left behind"

    def start(self) -> Machine:
        """Start the service as `lifecycle` does, and wait until it answers."""
        readable, writable = os.pipe()
        command = [*self.wrap, sys.executable, "-P", "-m", "modelhub_tui.service", "--ready-fd", str(writable)]
        with (self.home / "output.log").open("ab") as output:
            self._process = subprocess.Popen(
                command,
                env=self.env,
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=(writable,),
                start_new_session=True,
            )
        os.close(writable)
        try:
            said = b""
            while not said.endswith(b"\n"):
                assert select.select([readable], [], [], PATIENCE_S)[0], "the service did not start in time"
                chunk = os.read(readable, 65536)
                assert chunk, f"the service ended at once: {self.output()}"
                said += chunk
        finally:
            os.close(readable)
        told = json.loads(said)
        assert told.get("ok"), told
        self.info = find_service(self.settings)
        assert self.info is not None
        return self

    def attach(self) -> Machine:
        """Take over the service that a command on this machine started."""
        self.info = find_service(self.settings)
        assert self.info is not None, f"no command started a service: {self.output()}"
        self._process = psutil.Process(self.info.pid)
        return self

    def stop(self) -> None:
        """Stop it as `modelhub stop` does, however it is."""
        process, self._process = self._process, None
        self._forget()
        if process is None:
            return
        with contextlib.suppress(psutil.NoSuchProcess):
            process.terminate()
            try:
                process.wait(20)
            except (subprocess.TimeoutExpired, psutil.TimeoutExpired):
                process.kill()
                process.wait(20)
        self.until(lambda: not self.processes(), "all processes end")

    def kill(self) -> int:
        """SIGKILL the service, and only it. Its node has to notice by itself. Returns the node's pid, 0 for none."""
        process = self._process
        assert process is not None
        node = self.node_pid() or 0
        os.kill(self.service_pid, signal.SIGKILL)
        process.wait(20)
        self._process = None
        self._forget()
        return node

    def kill_node(self) -> int:
        """SIGKILL the node; returns the pid it had."""
        pid = self.until(self.node_pid, "the node runs")
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        return pid

    @property
    def service_pid(self) -> int:
        assert self.info is not None
        return self.info.pid

    def node_pid(self) -> int | None:
        """The supervised node's process."""
        with contextlib.suppress(psutil.NoSuchProcess):
            for child in psutil.Process(self.service_pid).children():
                if child.status() != psutil.STATUS_ZOMBIE:
                    return child.pid
        return None

    def processes(self) -> list[int]:
        """Every living process that belongs to this state folder."""
        found = []
        wanted = str(self.home / "state")
        for each in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if each.status() != psutil.STATUS_ZOMBIE and each.environ().get("MODELHUB_STATE_DIR") == wanted:
                    found.append(each.pid)
        return found

    def lock_holder(self) -> int | None:
        """Who holds the state folder."""
        return lock_holder(self.home / "state")

    def output(self) -> str:
        """What service and node wrote, for a failed test's report."""
        logs = [self.home / "output.log", *sorted((self.home / "state").rglob("*.log"))]
        return "\n".join(f"--- {each}\n{each.read_text(errors='replace')[-6000:]}" for each in logs if each.exists())

    def cli(self, *argv: str, **options: Any) -> subprocess.Popen[str]:
        """`modelhub ARGV` on this machine, not waited for."""
        pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
        return subprocess.Popen(
            [sys.executable, "-m", "modelhub_tui", *argv], env=self.env, text=True, cwd="/", **pipes
        )

    # -- the API

    def ask(self, method: str, path: str, body: object = None, *, timeout_s: float = 30.0) -> Any:
        """One request with the admin key; the parsed answer.

        Raises:
            Refused: An error status.
            OSError: Nobody answers.
        """
        return self._line.ask(self.info, method, path, body, timeout_s=timeout_s)

    def _forget(self) -> None:
        self.info = None
        self._line.close()

    def register(self, repo: str, filename: str | None = None) -> str:
        """Pull a repo, or one file of it; returns the registered name."""
        body = {"repo": repo} | ({"filename": filename} if filename else {})
        return str(self.ask("POST", "/v0/models/register", body)["name"])

    def delete(self, name: str, query: str = "cancel=true&keep=false") -> None:
        """Delete a model; `query` as docs/wire.md says."""
        self.ask("DELETE", f"/v0/models/{quote(name, safe='')}?{query}")

    def control(self, name: str, what: str, body: object = None) -> None:
        """`pause`, `resume`, `retry` or `move` a transfer."""
        self.ask("POST", f"/v0/transfers/{quote(name, safe='')}/{what}", body)

    def limits(self, **changed: Any) -> dict[str, Any]:
        """Change the limits; returns all of them."""
        told: dict[str, Any] = self.ask("PATCH", "/v0/service/limits", changed)
        return told

    def models(self) -> dict[str, dict[str, Any]]:
        """What is registered or being deleted, by name."""
        told = self.ask("GET", "/v0/models")
        return {each["name"]: each for each in told if each["registered"] or each["status"] == "deleting"}

    def usable(self) -> list[str]:
        """`GET /v1/models`: the names an engine would be told."""
        return [each["id"] for each in self.ask("GET", "/v1/models")["data"]]

    def transfer(self, name: str) -> dict[str, Any] | None:
        """How one model's transfer stands."""
        model = self.models().get(name)
        return model["transfers"][0] if model and model["transfers"] else None

    def wait_whole(self, *names: str, timeout_s: float = PATIENCE_S) -> None:
        """Until all of them are whole on the node's disk."""
        self.until(
            lambda: (now := self.models()) and all(now.get(each, {}).get("status") == "ready" for each in names),
            f"{names} arrive",
            timeout_s,
        )

    def wait_phase(self, name: str, *phases: str, code: str | None = None) -> dict[str, Any]:
        """Until a transfer is in one of these phases (and says this error code); returns it."""

        def there() -> dict[str, Any] | None:
            now = self.transfer(name)
            return now if now and now["phase"] in phases and code in (None, now["error_code"]) else None

        return self.until(there, f"{name} is {phases} {code or ''}")

    def wait_gone(self, name: str, timeout_s: float = PATIENCE_S) -> None:
        """Until a deleted model is gone from the list."""
        self.until(lambda: name not in self.models(), f"{name} goes", timeout_s)

    def until(self, check: Callable[[], T | None], what: str, timeout_s: float = PATIENCE_S) -> T:
        """Poll for what other processes do; a service that is down or starting has not done it yet."""
        deadline = time.monotonic() + timeout_s
        while True:
            trouble: object = ""
            try:
                if found := check():
                    return found
            except (OSError, Refused) as error:
                trouble = error
            if time.monotonic() > deadline:
                try:
                    stand: object = self.models()
                except (OSError, Refused) as error:
                    stand = error
                raise AssertionError(f"never happened: {what} {trouble}\nmodels: {stand}\n{self.output()}")
            time.sleep(0.03)
