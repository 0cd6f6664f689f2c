"""`python -m modelhub_tui.service --ready-fd N`: the background process. Started by `lifecycle`, not by people."""

from __future__ import annotations

import gc
import sys


def run() -> None:
    """Read the settings from the environment and serve."""
    # What the start imports stays: collecting it again and again meanwhile only costs time.
    gc.disable()
    from modelhub_tui.config import load_settings
    from modelhub_tui.errors import BadSettings
    from modelhub_tui.identifiers import whole_number
    from modelhub_tui.service.daemon import exit_now, main, tell

    said = whole_number(sys.argv[2], 2**20) if len(sys.argv) == 3 and sys.argv[1] == "--ready-fd" else None
    ready_fd = -1 if said is None else said
    try:
        settings = load_settings()
    except BadSettings as error:
        tell(ready_fd, {"error": error.reason})
        exit_now(2)
    exit_now(main(settings, ready_fd))


if __name__ == "__main__":
    run()
