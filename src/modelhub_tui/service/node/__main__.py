"""`python -m modelhub_tui.service.node`: the node as the local service starts it, configured by its environment.

MODELHUB_ROUTER, MODELHUB_API_KEY (the node key), MODELHUB_STATE_DIR, the HF_* variables, MODELHUB_NODE_DOOR: the folder
whose socket leads to the router, and MODELHUB_NODE_LIFELINE: the number of a pipe's descriptor whose end of file means
that the parent is gone.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from modelhub_tui.config import load_settings
from modelhub_tui.errors import ModelHubError, explain
from modelhub_tui.identifiers import whole_number
from modelhub_tui.service.node.runner import run_node
from modelhub_tui.untrusted import printable


def main() -> int:
    """Exit code of the process: 0 stopped, 1 broke, 2 wrongly configured."""
    try:
        settings = load_settings()
    except ModelHubError as error:
        return _complain(str(explain(error)))
    # Out of the environment: a crash report or a child's environment must not carry it.
    key = os.environ.pop("MODELHUB_API_KEY", None)
    if settings.router is None or not key:
        return _complain("A node needs MODELHUB_ROUTER and MODELHUB_API_KEY; `modelhub node` sets them for you.")
    said = os.environ.pop("MODELHUB_NODE_LIFELINE", "")
    door = os.environ.pop("MODELHUB_NODE_DOOR", "")
    try:
        return run_node(
            settings,
            router_url=settings.router,
            key=key,
            name=os.environ.get("MODELHUB_NODE_NAME"),
            lifeline=whole_number(said, 2**20),
            door=Path(door) if door else None,
        )
    except (ModelHubError, OSError) as error:  # its folder or its log cannot be written
        _complain(str(explain(error)))
        return 1


def _complain(sentence: str) -> int:
    try:
        sys.stderr.write(printable(sentence) + "\n")
    except (OSError, AttributeError, ValueError):
        pass
    return 2


if __name__ == "__main__":
    sys.exit(main())
