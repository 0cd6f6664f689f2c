"""`make bench`: every budget of docs/performance.md with the figure measured beside it.

Runs are interleaved, so that a busy machine disturbs all of them alike; trust the ratios. Nothing outside this machine
is asked, and everything happens in a temporary folder.

    make bench ARGS="--runs 15 --only start,bytes --json figures.json"
    make bench ARGS="--save"        # a new benchmarks/baseline.json
    make bench-compare              # and what is worse than in it
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import rich
import textual

from benchmarks import data, screen, service, start
from benchmarks.measure import Figures, Sandbox, worse
from modelhub_tui import __version__

BASELINE = Path(__file__).with_name("baseline.json")
SCENARIOS: dict[str, Callable[[Figures, Sandbox, int], None]] = {
    "start": start.start,
    "commands": start.commands,
    "bytes": screen.bytes_of_actions,
    "sizes": screen.sizes,
    "quiet": screen.quiet,
    "link": screen.slow_link,
    "data": data.data,
    "service": service.service,
}


def main() -> int:
    """Measure, print the table, write the figures, compare."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure what docs/performance.md tells.")
    parser.add_argument("--runs", type=int, default=5, help="how often each thing is measured; 5 if unset")
    parser.add_argument("--only", metavar="NAMES", help=f"some of: {','.join(SCENARIOS)}")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here too")
    parser.add_argument("--markdown", action="store_true", help="print the table as docs/performance.md has it")
    parser.add_argument("--save", action="store_true", help="make the figures the baseline of bench-compare")
    parser.add_argument("--compare", action="store_true", help="exit 1 if something is worse than in the baseline")
    options = parser.parse_args()
    names = options.only.split(",") if options.only else list(SCENARIOS)
    if unknown := [name for name in names if name not in SCENARIOS]:
        parser.error(f"there is no {unknown[0]}; choose from {', '.join(SCENARIOS)}")
    figures = Figures()
    for name in names:
        with tempfile.TemporaryDirectory(prefix="modelhub-bench-", ignore_cleanup_errors=True) as folder:
            begin = time.monotonic()
            SCENARIOS[name](figures, Sandbox(Path(folder)), options.runs)
            print(f"{name}: {time.monotonic() - begin:.0f} s", file=sys.stderr)
    about = {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": f"{os.cpu_count()} x {platform.machine()}, {platform.system()} {platform.release()}",
        "load": [round(each, 2) for each in os.getloadavg()],
        "python": platform.python_version(),
        "modelhub": __version__,
        "textual": textual.__version__,
        "rich": getattr(rich, "__version__", "15"),
        "terminal": "120x40, truecolor",
    }
    print("; ".join(f"{name} {value}" for name, value in about.items()))
    print(figures.markdown() if options.markdown else figures.table())
    said = {"about": about, "figures": figures.as_json()}
    for path in filter(None, (options.json, BASELINE if options.save else None)):
        path.write_text(json.dumps(said, indent=2) + "\n")
    if not options.compare:
        return 0
    if not BASELINE.exists():
        print('There is no baseline yet; make one with: make bench ARGS="--save"', file=sys.stderr)
        return 2
    found = worse(json.loads(BASELINE.read_text())["figures"], figures.as_json())
    print("\n".join(["", "Worse than the baseline:", *found] if found else ["", "Nothing is worse than the baseline."]))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
