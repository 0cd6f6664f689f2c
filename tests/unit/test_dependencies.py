"""What the program imports is declared, and no version with a hole that we know of may be installed for it."""

from __future__ import annotations

import ast
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
DECLARED = {canonicalize_name(each.name): each for each in map(Requirement, PROJECT["dependencies"])}
OPTIONAL = {
    canonicalize_name(Requirement(each).name): Requirement(each)
    for extra, members in PROJECT["optional-dependencies"].items()
    if extra != "dev"
    for each in members
}
# Named to keep old versions out: other dependencies bring them.
BROUGHT_IN = {"h11", "filelock"}


def imported() -> set[str]:
    """The distributions behind all imports in `src`, those inside of functions too."""
    modules: set[str] = set()
    for path in (ROOT / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                modules.update(each.name.partition(".")[0] for each in node.names)
            elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
                modules.add(node.module.partition(".")[0])
    known = packages_distributions()
    ours = modules - set(sys.stdlib_module_names) - {"modelhub_tui"}
    return {canonicalize_name(known.get(each, [each])[0]) for each in ours}


def test_every_import_is_declared_and_everything_declared_is_imported() -> None:
    assert imported() - OPTIONAL.keys() - DECLARED.keys() == set()
    assert DECLARED.keys() - imported() - BROUGHT_IN == set()


@pytest.mark.parametrize("requirement", [*DECLARED.values(), *OPTIONAL.values()], ids=str)
def test_every_dependency_has_a_lower_bound(requirement: Requirement) -> None:
    assert any(each.operator in (">=", "==", "~=") for each in requirement.specifier)


@pytest.mark.parametrize(
    ("name", "version"),
    [
        ("h11", "0.15.0"),  # CVE-2025-43859
        ("filelock", "3.20.2"),  # CVE-2025-68146, CVE-2026-22701
        ("starlette", "1.3.0"),  # CVE-2026-48710, CVE-2026-54283
        ("certifi", "2024.6.2"),  # CVE-2024-39689
        ("pyyaml", "5.3.1"),  # CVE-2020-14343
        ("pydantic", "2.3.0"),  # CVE-2024-3772
        ("httpx", "0.22.0"),  # CVE-2021-41945
        ("uvicorn", "0.11.6"),  # CVE-2020-7694
    ],
)
def test_a_version_with_a_known_hole_is_never_installed(name: str, version: str) -> None:
    assert version not in DECLARED[name].specifier


def test_the_versions_we_test_with_are_within_the_bounds() -> None:
    pinned = dict(
        line.split("==")
        for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
        if line and not line.startswith("#")
    )
    versions = {canonicalize_name(name): version for name, version in pinned.items()}
    wrong = [name for name, each in DECLARED.items() if versions[name] not in each.specifier]
    assert wrong == []
