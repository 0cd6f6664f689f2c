"""`make bench-peers`: start, bytes and memory of other terminal programs for models, beside the dashboard, in one run.

They are installed in throw-away virtual environments, which needs a network; each runs in a home of its own. A marker
is what a person recognises as the program's first content.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
import venv
from dataclasses import dataclass
from pathlib import Path

from tests.tty import Terminal
from tests.tty.terminal import installed

from benchmarks.measure import Figures, Sandbox
from benchmarks.screen import resident_mib
from benchmarks.start import ROOT


@dataclass(frozen=True, slots=True)
class Peer:
    """Another program."""

    package: str
    command: str
    marker: str


PEERS = (
    Peer("parllama", "parllama", "Local"),
    Peer("oterm", "oterm", "oterm"),
    Peer("llmfit", "llmfit", "Model"),
    Peer("posting", "posting", "Posting"),
    Peer("harlequin", "harlequin", "Query Editor"),
)
IDLE_S = 5.0
PATIENCE_S = 60.0
INSTALL_S = 600.0


def main() -> int:
    """Install, measure, print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description="Measure other programs too.")
    parser.add_argument("--runs", type=int, default=5, help="how often each program is started; 5 if unset")
    options = parser.parse_args()
    figures = Figures()
    with tempfile.TemporaryDirectory(prefix="modelhub-peers-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        print("Setting up virtual environments for the peers ...", file=sys.stderr)
        peers = [peer for peer in PEERS if _install(folder / "tools", folder / f"{peer.package}-venv", peer)]
        if not peers:
            print("make bench-peers needs a network: none of the peers could be installed.", file=sys.stderr)
            return 2
        ours = ("modelhub", installed(), "Model Hub")
        programs = [
            ours,
            *((each.package, folder / f"{each.package}-venv" / "bin" / each.command, each.marker) for each in peers),
        ]
        for number in range(options.runs + 1):
            for title, program, marker in programs:
                _measure(figures if number else Figures(), Sandbox(folder / title), title, program, marker)
    print(figures.table())
    return 0


def _install(tools: Path, folder: Path, peer: Peer) -> bool:
    """Install it with `uv`, which also finds versions that go together where `pip` tries them for half an hour."""
    uv = tools / "bin" / "uv"
    steps: list[list[str | Path]] = []
    if not uv.exists():
        venv.create(tools, with_pip=True)
        steps.append([tools / "bin" / "pip", "install", "--quiet", "--disable-pip-version-check", "uv"])
    steps.append([uv, "venv", "--quiet", "--python", sys.executable, folder])
    steps.append([uv, "pip", "install", "--quiet", "--compile-bytecode", "--python", folder, peer.package])
    try:
        for step in steps:
            subprocess.run(step, check=True, capture_output=True, text=True, timeout=INSTALL_S)
    except (OSError, subprocess.SubprocessError) as error:
        told = (getattr(error, "stderr", None) or str(error)).strip()
        print(f"{peer.package} was left out: it could not be installed: {told}", file=sys.stderr)
        return False
    return True


def _measure(figures: Figures, sandbox: Sandbox, title: str, program: Path, marker: str) -> None:
    """One start; the first of each program is not counted, as it may set things up."""
    sandbox.folder.mkdir(exist_ok=True)
    beside = "modelhub" if title != "modelhub" else ""
    with Terminal([program], env=sandbox.env(XDG_CONFIG_HOME="", XDG_CACHE_HOME=""), cwd=ROOT) as terminal:
        try:
            terminal.wait_for(marker, PATIENCE_S)
        except AssertionError as error:
            print(f"{title}: {str(error).partition(';')[0]}", file=sys.stderr)
            return
        took_s = terminal.reads[-1][0] - terminal.started_at
        figures.add(f"{title}: to its first content", "s", took_s, beside=beside and f"{beside}: to its first content")
        time.sleep(2.0)
        before = terminal.bytes_written
        time.sleep(IDLE_S)
        figures.add(f"{title}: idle", "B/s", (terminal.bytes_written - before) / IDLE_S)
        memory = resident_mib(terminal.pid)
        figures.add(f"{title}: memory", "MiB", memory, beside=beside and f"{beside}: memory")


if __name__ == "__main__":
    sys.exit(main())
