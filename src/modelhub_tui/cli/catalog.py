"""`modelhub catalog check`: every problem of a catalog, one line each."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from modelhub_tui.catalog import catalog_path, check_catalog, load_catalog
from modelhub_tui.cli import FAILED, OK
from modelhub_tui.cli.output import Console
from modelhub_tui.config import Settings

if TYPE_CHECKING:
    from modelhub_tui.cli.look import Connect


def check(arguments: Namespace, settings: Settings, console: Console, connect: Connect) -> int:  # noqa: ARG001
    """Check a catalog file."""
    path = catalog_path(Path(arguments.file) if arguments.file else settings.catalog)
    problems = check_catalog(path)
    if console.as_json:
        console.json({"path": str(path), "problems": list(problems)})
    elif problems:
        for problem in problems:
            console.print(problem)
        count = len(problems)
        console.say(f"modelhub: {count} problem{'s' if count > 1 else ''} in {path}.", "red")
    else:
        console.say(f"{path} is fine: {len(load_catalog(path))} models.")
    return FAILED if problems else OK
