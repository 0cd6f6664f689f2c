"""`make bench-pull`: how fast a model arrives, beside curl, aria2c and `hf download`, all in one run.

Two links, both on this machine: nginx on loopback, and the same nginx with 20 MB/s for each connection behind a proxy
that holds each request back for 50 ms. Ours is the real thing: a router, a node process, metadata from a loopback hub
through `huggingface_hub`, whose answer sends to nginx; verified, published and linked. curl is timed with a SHA-256 of
the file behind it, `hf download` and aria2c without one. Runs are interleaved; trust the ratios.
"""

from __future__ import annotations

import argparse
import contextlib
import getpass
import hashlib
import json
import os
import platform
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from tests.hub import HubRepo, LoopbackHub
from tests.node.stub_router import KEY, StubRouter, manifest_of

from benchmarks.measure import Figures, Sandbox
from modelhub_tui import __version__

ROOT = Path(__file__).parents[1]
GIB = 1 << 30
MIB = 1 << 20
CAP_BPS = 20_000_000
LATENCY_S = 0.05
OURS = "modelhub"
PROGRAMS = ("curl + sha256", "aria2c -x8", "hf download", OURS)
"""In the order of a round; ours comes last, to be divided by the others."""
REPO, FILE, SMALL = "acme/Bench-GGUF", "bench.gguf", "small.gguf"
NAME = "acme/bench-gguf"
HASH_COMMAND = (sys.executable, "-c", "import hashlib,sys;hashlib.file_digest(open(sys.argv[1],'rb'),'sha256')")
"""Not sha256sum: some builds of it do not use the processor's SHA instructions and take five times as long."""


@dataclass(frozen=True, slots=True)
class Cost:
    """What one pull took."""

    wall_s: float
    cpu_s: float
    """Of the downloading process and its children; not of the server."""
    peak_mib: float


def main() -> int:
    """Measure, print the table, and write the figures."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pull", description="Measure the speed of a pull.")
    parser.add_argument("--runs", type=int, default=5, help="how often each program pulls; 5 if unset")
    parser.add_argument("--mib", type=int, default=1024, help="size of the file in MiB; 1024 if unset")
    parser.add_argument("--link", choices=("loopback", "capped"), help="only this link")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here too")
    parser.add_argument("--folder", type=Path, help="where the files go; a temporary folder if unset")
    options = parser.parse_args()
    if lacking := _lacking():
        print(f"make bench-pull {lacking}")
        return 1
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # leave nothing behind
    figures = Figures()
    links = {link: PROGRAMS for link in ("loopback", "capped") if options.link in (None, link)}
    with tempfile.TemporaryDirectory(prefix="modelhub-pull-", dir=options.folder) as name:
        _measure_all(figures, Path(name), links, options.mib, options.runs)
    about = {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": f"{os.cpu_count()} x {platform.machine()}, {platform.system()} {platform.release()}",
        "load": [round(each, 2) for each in os.getloadavg()],
        "file": f"{options.mib} MiB",
        "links": f"loopback; {CAP_BPS // 1_000_000} MB/s for each connection and {LATENCY_S * 1000:.0f} ms per request",
        "python": platform.python_version(),
        "modelhub": __version__,
        **{name: _version(name) for name in ("curl", "aria2c")},
    }
    print("; ".join(f"{name} {value}" for name, value in about.items()))
    print(figures.table())
    if options.json:
        options.json.write_text(json.dumps({"about": about, "figures": figures.as_json()}, indent=2) + "\n")
    return 0


def pull(figures: Figures, sandbox: Sandbox, runs: int) -> None:
    """For `make bench`: what the budgets are about and no more, as a single capped connection takes a minute."""
    if lacking := _lacking():
        print(f"pull: left out; it {lacking}", file=sys.stderr)
        return
    links = {"loopback": ("curl + sha256", "hf download", OURS), "capped": ("aria2c -x8", OURS)}
    _measure_all(figures, sandbox.folder, links, 1024, min(runs, 3))


def _lacking() -> str:
    """What has to be installed first, in words; empty if nothing."""
    missing = [name for name in ("nginx", "curl", "aria2c") if _which(name) is None]
    return f"needs {' and '.join(missing)}; on Debian or Ubuntu: apt install nginx-light curl aria2" if missing else ""


def _measure_all(figures: Figures, folder: Path, links: Mapping[str, Sequence[str]], mib: int, runs: int) -> None:
    """Measure these programs on these links."""
    source = folder / "www" / FILE
    _write_noise(source, mib * MIB)
    source.with_name(SMALL).write_bytes(os.urandom(MIB))
    with _nginx(folder) as (fast, capped), _delay(capped) as far:
        for link, names in links.items():
            _measure(figures, folder, source, link, fast if link == "loopback" else far, names, runs)


def _measure(
    figures: Figures, folder: Path, source: Path, link: str, url: str, names: Sequence[str], runs: int
) -> None:
    """Each program once per round."""
    repo = HubRepo(REPO, {FILE: source, SMALL: source.with_name(SMALL)})
    with LoopbackHub([repo]) as hub:
        # The hub's answer to HEAD sends to nginx, as the live hub's sends to its CDN.
        hub.api.sign = lambda _repo, path, _blob: f"{url}/{path}"  # type: ignore[method-assign]
        out = folder / "out"
        programs: dict[str, Callable[[], Cost]] = {
            "curl + sha256": lambda: _plain(
                out, ["curl", "-fsS", "-o", str(out / FILE), f"{url}/{FILE}"], hash_after=True
            ),
            "aria2c -x8": lambda: _plain(
                out,
                ["aria2c", "-q", "-x8", "-s8", "--file-allocation=none", "-d", str(out), "-o", FILE, f"{url}/{FILE}"],
            ),
            "hf download": lambda: _plain(
                out, [str(Path(sys.executable).with_name("hf")), "download", REPO, FILE], env=_env(hub, out)
            ),
            OURS: lambda: _ours(out, hub, repo),
        }
        size = source.stat().st_size
        budgets = {
            ("loopback", "curl + sha256"): ">= 0.8x",
            ("loopback", "hf download"): ">= 2x",
            ("capped", "aria2c -x8"): ">= 0.9x",
        }
        for _ in range(runs):
            for name in names:
                shutil.rmtree(out, ignore_errors=True)
                out.mkdir()
                cost = programs[name]()
                print(f"{link}: {name}: {cost.wall_s:.1f} s", file=sys.stderr)
                figures.add(f"{link}: {name}", "MB/s", size / cost.wall_s / 1e6)
                ours = name == OURS
                if ours:
                    for other in names[:-1]:
                        figures.add(
                            f"{link}: modelhub beside {other}",
                            "MB/s",
                            size / cost.wall_s / 1e6,
                            beside=f"{link}: {other}",
                            budget=budgets.get((link, other), ""),
                        )
                figures.add(
                    f"{link}: {name}, processor", "s/GiB", cost.cpu_s * GIB / size, budget="<= 2.5" if ours else ""
                )
                figures.add(f"{link}: {name}, memory", "MiB", cost.peak_mib, budget="<= 80" if ours else "")
        shutil.rmtree(out, ignore_errors=True)


def _plain(out: Path, argv: Sequence[str], *, hash_after: bool = False, env: dict[str, str] | None = None) -> Cost:
    begin = time.monotonic()
    cost = _run(argv, env)
    if hash_after:
        more = _run([*HASH_COMMAND, str(out / FILE)], None)
        cost = Cost(0, cost.cpu_s + more.cpu_s, max(cost.peak_mib, more.peak_mib))
    return Cost(time.monotonic() - begin, cost.cpu_s, cost.peak_mib)


def _run(argv: Sequence[str], env: dict[str, str] | None) -> Cost:
    process = subprocess.Popen(
        argv, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    assert process.stderr is not None
    try:
        said = process.stderr.read()
    except BaseException:
        process.kill()
        raise
    finally:
        status, used = _reap(process)
    if status:
        raise RuntimeError(f"{argv[0]} failed: {said.decode(errors='replace')[-500:]}")
    return Cost(0, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024)


def _reap(process: subprocess.Popen[bytes]) -> tuple[int, resource.struct_rusage]:
    """Wait for a process; its exit status and what it used."""
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return process.returncode, used


def _ours(out: Path, hub: LoopbackHub, repo: HubRepo) -> Cost:
    """From the model in the router's list to the model whole in the node's report.

    The node has fetched a small one before, as a service that runs for weeks has: its start is not counted.
    """
    with StubRouter() as router:
        env = {**_env(hub, out), "MODELHUB_ROUTER": router.url, "MODELHUB_API_KEY": KEY}
        env["MODELHUB_STATE_DIR"] = str(out / "state")
        node = subprocess.Popen(
            [sys.executable, "-m", "modelhub_tui.service.node"],
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            router.wait(lambda: router.heartbeats, 60)
            router.register(f"{NAME}-small", manifest_of(repo, SMALL))
            router.wait(lambda: router.placement(f"{NAME}-small"), 60)
            begin, idle_s = time.monotonic(), _cpu_s(node.pid)
            router.register(NAME, manifest_of(repo, FILE))
            router.wait(lambda: router.placement(NAME), 600)
            wall_s, cpu_s = time.monotonic() - begin, _cpu_s(node.pid) - idle_s
        finally:
            node.terminate()
            _, used = _reap(node)
    return Cost(wall_s, cpu_s, used.ru_maxrss / 1024)


def _cpu_s(pid: int) -> float:
    """Processor seconds of a running process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _env(hub: LoopbackHub, home: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "MODELHUB_"))}
    return {**kept, **hub.env(), "HOME": str(home), "HF_HOME": str(home / "hf"), "HF_HUB_DISABLE_PROGRESS_BARS": "1"}


def _write_noise(path: Path, size: int) -> None:
    """Bytes no disk and no link can make smaller."""
    path.parent.mkdir(parents=True)
    block = os.urandom(MIB)
    with path.open("wb") as file:
        for number in range(size // MIB):
            file.write(hashlib.sha256(number.to_bytes(8, "little")).digest() + block[32:])


@contextlib.contextmanager
def _nginx(folder: Path) -> Iterator[tuple[str, str]]:
    """The addresses of nginx without and with a limit for each connection."""
    ports = _free_ports(2)
    place = folder / "nginx"
    place.mkdir()
    temporary = "".join(
        f"{kind}_temp_path {place / kind};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    # Started by root it would drop to a user who may not look into our folder.
    user = f"user {getpass.getuser()};\n" if os.geteuid() == 0 else ""
    (place / "nginx.conf").write_text(
        f"{user}worker_processes 1;\ndaemon off;\npid {place / 'pid'};\nerror_log {place / 'error.log'};\n"
        "events { worker_connections 256; }\n"
        f"http {{\naccess_log off;\nsendfile on;\nkeepalive_requests 100000;\n{temporary}"
        f"server {{ listen 127.0.0.1:{ports[0]}; root {folder / 'www'}; }}\n"
        f"server {{ listen 127.0.0.1:{ports[1]}; root {folder / 'www'}; limit_rate {CAP_BPS}; }}\n}}\n"
    )
    server = subprocess.Popen(
        [str(_which("nginx")), "-p", str(place), "-c", str(place / "nginx.conf")],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        until = time.monotonic() + 20
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", ports[1]), 1):
                break
            if server.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"nginx does not start: {(place / 'error.log').read_text()[-500:]}")
        yield f"http://127.0.0.1:{ports[0]}", f"http://127.0.0.1:{ports[1]}"
    finally:
        server.terminate()
        server.wait()


@contextlib.contextmanager
def _delay(target: str) -> Iterator[str]:
    """A proxy in a process of its own that holds back what a client says, and hands on what it gets, at once."""
    (port,) = _free_ports(1)
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.pull", "--delay-proxy", str(port), target.rpartition(":")[2]], cwd=ROOT
    )
    try:
        until = time.monotonic() + 20
        while time.monotonic() < until:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


def delay_proxy(port: int, target: int) -> None:
    """Serve for ever: each request reaches `target` `LATENCY_S` late."""
    listener = socket.create_server(("127.0.0.1", port), backlog=64)

    def upwards(client: socket.socket, server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while said := client.recv(65536):
                time.sleep(LATENCY_S)
                server.sendall(said)
        with contextlib.suppress(OSError):
            server.shutdown(socket.SHUT_WR)

    def downwards(client: socket.socket, server: socket.socket) -> None:
        buffer = memoryview(bytearray(256 * 1024))
        with contextlib.suppress(OSError):
            while count := server.recv_into(buffer):
                client.sendall(buffer[:count])
        for each in (client, server):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    while True:
        client, _ = listener.accept()
        server = socket.create_connection(("127.0.0.1", target))
        for work in (upwards, downwards):
            threading.Thread(target=work, args=(client, server), daemon=True).start()


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def _which(name: str) -> str | None:
    return shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin:/sbin")


def _version(name: str) -> str:
    said = subprocess.run([name, "--version"], capture_output=True, text=True, check=True).stdout
    return next((word for word in said.split() if word[:1].isdigit()), "?")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--delay-proxy"]:
        delay_proxy(int(sys.argv[2]), int(sys.argv[3]))
    sys.exit(main())
