"""`--json` for programs: whatever stdout can spell, every name comes through."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

NAMES = ["/models/\udcff\udcfe.gguf", "/modèles/模型/🦙.gguf", "a\x1bb"]


@pytest.mark.parametrize(
    "env",
    [
        {"PYTHONIOENCODING": "latin-1"},
        {"PYTHONIOENCODING": "ascii"},
        {"PYTHONIOENCODING": "utf-16"},
        {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
        {"LC_ALL": "C"},
        {"LC_ALL": "C.UTF-8"},
        {"TERM": "linux"},
    ],
    ids=lambda env: ",".join(f"{name}={value}" for name, value in env.items()),
)
@pytest.mark.parametrize("names", [NAMES, NAMES[1:]], ids=["with bytes that are no text", "text"])
@pytest.mark.parametrize("method", ["json", "json_line"])
def test_every_name_comes_through(env: dict[str, str], names: list[str], method: str) -> None:
    code = (
        "import json, sys; from modelhub_tui.cli.output import Console;"
        f"Console(as_json=True).{method}(json.loads(sys.argv[1]))"
    )
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("LC_", "LANG", "PYTHON"))}
    told = subprocess.run(
        [sys.executable, "-c", code, json.dumps(names)], env=clean | env, capture_output=True, timeout=60, check=True
    )
    text = told.stdout.decode("utf-16" if env.get("PYTHONIOENCODING") == "utf-16" else "utf-8")
    assert json.loads(text) == names
    assert not [each for each in text if not each.isprintable() and each != "\n"]
