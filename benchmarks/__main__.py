"""`make bench`: every budget of docs/performance.md with the figure measured beside it.

Runs are interleaved, so that a busy machine disturbs all of them alike; trust the ratios. Nothing outside this machine
is asked. Everything happens in a temporary folder, but for the figures: benchmarks/results/ keeps those of each run.

    make bench ARGS="--runs 15 --only start,bytes --json figures.json"
    make bench ARGS="--quick"       # each thing twice
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

from benchmarks import data, fleet, growth, pull, screen, screens, service, start, typed
from benchmarks.measure import YARDSTICK, Figures, Sandbox, compare, yardstick_ms
from modelhub_tui import __version__

BASELINE = Path(__file__).with_name("baseline.json")
RESULTS = Path(__file__).with_name("results")
QUICK_RUNS = 2
SCENARIOS: dict[str, Callable[[Figures, Sandbox, int], None]] = {
    "start": start.start,
    "commands": start.commands,
    "bytes": screen.bytes_of_actions,
    "sizes": screen.sizes,
    "screens": screens.screens,
    "mount": screens.mounted,
    "typed": typed.typed,
    "quiet": screen.quiet,
    "link": screen.slow_link,
    "data": data.data,
    "nodes": fleet.nodes,
    "service": service.service,
    "pull": pull.pull,
}


def main() -> int:
    """Measure, print the table, write the figures, compare."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure what docs/performance.md tells.")
    parser.add_argument("--runs", type=int, default=5, help="how often each thing is measured; 5 if unset")
    parser.add_argument("--quick", action="store_true", help=f"measure each thing {QUICK_RUNS} times only")
    parser.add_argument("--only", metavar="NAMES", help=f"some of: {','.join(SCENARIOS)}")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here too")
    parser.add_argument("--markdown", action="store_true", help="print the tables as docs/performance.md has them")
    parser.add_argument("--save", action="store_true", help="make the figures the baseline of bench-compare")
    parser.add_argument("--compare", action="store_true", help="exit 1 if something is worse than in the baseline")
    options = parser.parse_args()
    names = options.only.split(",") if options.only else list(SCENARIOS)
    if unknown := [name for name in names if name not in SCENARIOS]:
        parser.error(f"there is no {unknown[0]}; choose from {', '.join(SCENARIOS)}")
    runs = QUICK_RUNS if options.quick else options.runs
    figures = Figures()
    for name in names:
        for _ in range(3):  # before each scenario, as the load of a machine comes and goes
            figures.add(YARDSTICK, "ms", yardstick_ms())
        with tempfile.TemporaryDirectory(prefix="modelhub-bench-", ignore_cleanup_errors=True) as folder:
            begin = time.monotonic()
            SCENARIOS[name](figures, Sandbox(Path(folder)), runs)
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
    if options.markdown and (lines := growth.growths(figures.as_json())):
        print("", growth.markdown(lines), sep="\n")
    said = {"about": about, "figures": figures.as_json()}
    RESULTS.mkdir(exist_ok=True)
    kept = RESULTS / f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}.json"
    for path in filter(None, (kept, options.json, BASELINE if options.save else None)):
        path.write_text(json.dumps(said, indent=2) + "\n")
    if not options.compare:
        return 0
    if not BASELINE.exists():
        print('There is no baseline yet; make one with: make bench ARGS="--save"', file=sys.stderr)
        return 2
    found = compare(json.loads(BASELINE.read_text())["figures"], figures.as_json())
    if found.without:
        print(f"\nNot in the baseline, so not compared: {', '.join(found.without)}")
    print(f"\n{len(found.worse)} of {found.compared} figures are worse than in the baseline.", *found.worse, sep="\n  ")
    return 1 if found.worse else 0


if __name__ == "__main__":
    sys.exit(main())
