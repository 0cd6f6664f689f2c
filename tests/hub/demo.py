"""`make demo`: the whole program, offline. A hub on this machine serves small stand-ins for the catalog's models.

`python -m tests.hub.demo [options] [-- arguments of modelhub]`. Everything lives in a temporary folder, removed at the
end together with the service that was started there; your own settings, models and tokens are not touched.
"""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from modelhub_tui.catalog import load_catalog
from tests.hub.demo_content import Demo, build, choose, fraction, write_catalog
from tests.hub.server import LoopbackHub

MB = 1_000_000


def main(argv: Sequence[str] | None = None) -> int:
    """Run the demo; return the exit code of `modelhub`."""
    said = list(sys.argv[1:] if argv is None else argv)
    ours, theirs = (said[: said.index("--")], said[said.index("--") + 1 :]) if "--" in said else (said, [])
    options = _parser().parse_args(ours)
    try:
        with _tidy_when_ended():
            return _demo(options, theirs)
    except KeyboardInterrupt:
        return 130


def _demo(options: argparse.Namespace, theirs: Sequence[str]) -> int:
    demo = build(choose(load_catalog(), options.models))
    with _folder(options.keep) as folder, LoopbackHub(demo.repos) as hub:
        _set_speed(hub, options.speed * MB)
        hub.fault(server="cdn", method="GET", path=f"{demo.flaky.repo}/*", reset_after=_breaks_after(demo), times=None)
        env = environment(hub, demo, folder)
        print(_one_line(demo, options.speed, options.keep), file=sys.stderr, flush=True)
        try:
            return _serve(env) if options.hub_only else _run(theirs, env)
        finally:
            stop_service(env)


def environment(hub: LoopbackHub, demo: Demo, folder: Path) -> dict[str, str]:
    """Write the demo's catalog into `folder`; return what a child needs to live in there."""
    write_catalog(demo, folder / "catalog.yaml")
    (folder / "config.toml").touch()
    return hub.env(
        HF_HOME=str(folder / "huggingface"),
        MODELHUB_STATE_DIR=str(folder / "state"),
        MODELHUB_CACHE_DIR=str(folder / "cache"),
        MODELHUB_CATALOG=str(folder / "catalog.yaml"),
        # Empty: the user's own config may name a router.
        MODELHUB_CONFIG=str(folder / "config.toml"),
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.hub.demo", description="Try the whole program offline.")
    parser.add_argument(
        "--speed", type=_speed, default=6.0, metavar="MB/S", help="of all downloads together; 6 if unset"
    )
    parser.add_argument("--models", type=int, default=60, metavar="N", help="how many models, 0 for the whole catalog")
    parser.add_argument("--keep", action="store_true", help="leave the folder with the downloads, and say where it is")
    parser.add_argument("--hub-only", action="store_true", help="print the environment to use and serve until ctrl+c")
    parser.epilog = "What follows -- goes to modelhub: python -m tests.hub.demo -- list --json"
    return parser


def _speed(text: str) -> float:
    speed = float(text)
    if not 0 < speed < 1e6:
        raise ValueError
    return speed


def _one_line(demo: Demo, speed: float, keep: bool) -> str:
    return (
        f"Demo: a hub on this machine serves {len(demo.catalog['models'])} small stand-ins at {speed:g} MB/s; "
        f"{demo.gated.name} is gated, {demo.flaky.name} has a bad line. "
        + ("Needs no network." if keep else "Needs no network, leaves nothing behind.")
    )


def _set_speed(hub: LoopbackHub, bps: float) -> None:
    """Share `bps` among all downloads; each alone gets half to all of it, by its name."""
    hub.throttle_bps = bps
    hub.connection_bps = lambda label: bps * (0.5 + 0.5 * fraction(f"speed {label}"))


def _breaks_after(demo: Demo) -> int:
    """Bytes after which the bad line breaks: each try gets about a third of the file."""
    sizes = {each["id"]: each["files"][0]["size_bytes"] for each in demo.catalog["models"]}
    return int(sizes[demo.flaky.id] * 0.35)


@contextmanager
def _folder(keep: bool) -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="modelhub-demo-"))
    try:
        yield folder
    finally:
        if keep:
            print(f"Kept: {folder}", file=sys.stderr)
        else:
            shutil.rmtree(folder, ignore_errors=True)


def _child_env(env: Mapping[str, str]) -> dict[str, str]:
    """Our own environment without anything that would lead out of the demo."""
    ours = ("MODELHUB_", "HF_", "HUGGING_FACE_", "HUGGINGFACE_")
    return {name: value for name, value in os.environ.items() if not name.startswith(ours)} | dict(env)


def _serve(env: Mapping[str, str]) -> int:
    """Print the environment and wait for ctrl+c."""
    print("unset HF_HUB_CACHE HF_TOKEN MODELHUB_ROUTER MODELHUB_API_KEY")
    for name, value in env.items():
        print(f"export {name}={shlex.quote(value)}")
    sys.stdout.flush()
    # A shell starts background jobs with SIGINT ignored; here it is the one way to end.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        threading.Event().wait()
    except KeyboardInterrupt:
        print(file=sys.stderr)
    return 0


def _run(arguments: Sequence[str], env: Mapping[str, str]) -> int:
    """Run `modelhub` until it ends."""
    # The terminal sends ctrl+c to both: the child decides what it means. A handler, unlike SIG_IGN, is not inherited.
    before = signal.signal(signal.SIGINT, lambda *_: None)
    child = subprocess.Popen([_program(), *arguments], env=_child_env(env))
    try:
        code = child.wait()
    except SystemExit:
        child.terminate()
        child.wait(10)
        raise
    finally:
        signal.signal(signal.SIGINT, before)
    return code if code >= 0 else 128 - code


def stop_service(env: Mapping[str, str]) -> None:
    """Stop what `modelhub` started in the background; its folder is about to go."""
    if not Path(env["MODELHUB_STATE_DIR"]).exists():
        return
    try:
        subprocess.run(
            [_program(), "stop"], env=_child_env(env), capture_output=True, check=True, text=True, timeout=30
        )
    except (OSError, subprocess.SubprocessError) as error:
        said = getattr(error, "stderr", None) or str(error)
        print(f"The demo's service may still run: {said.strip()}", file=sys.stderr)


def _program() -> str:
    """The installed `modelhub` of this Python."""
    beside = Path(sys.executable).with_name("modelhub")
    return str(beside) if beside.exists() else shutil.which("modelhub") or "modelhub"


@contextmanager
def _tidy_when_ended() -> Iterator[None]:
    """Ended from outside, the demo still tidies up: the exception unwinds through every `with`."""

    def leave(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    before = {each: signal.signal(each, leave) for each in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


if __name__ == "__main__":
    sys.exit(main())
