"""Every example of every help can be typed as it is: names in it mean one model of the built-in catalog."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Iterator

import pytest

from modelhub_tui.catalog import load_catalog
from modelhub_tui.cli.arguments import build_parser
from modelhub_tui.cli.names import resolve, resolve_pull
from modelhub_tui.cli.trash import _resolve as resolve_trashed
from modelhub_tui.domain import Trashed
from modelhub_tui.hub_refs import parse_hub_ref
from modelhub_tui.states import join_models

HUB = "https://huggingface.co"
MODELS = join_models(load_catalog(None, None), None)
KEPT = [Trashed(each.name, each.title, each.repo, each.file, 1, 0.0, 0.0) for each in MODELS]


def parsers(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for below in action.choices.values():
                yield from parsers(below)


def examples() -> list[str]:
    texts = [each.epilog or "" for each in parsers(build_parser())]
    found = [line.strip() for text in texts if text.startswith("examples:") for line in text.splitlines()[1:]]
    return [*dict.fromkeys(found)]


def test_there_are_examples_to_look_at() -> None:
    assert len(examples()) > 40


@pytest.mark.parametrize("example", examples())
def test_an_example_can_be_typed_as_it_is(example: str) -> None:
    program, *typed = shlex.split(example.split(" | ")[0].split(" > ")[0].split(" < ")[0])
    assert program == "modelhub"
    arguments = build_parser().parse_args(typed)
    names = [*getattr(arguments, "names", ()), *([arguments.name] if arguments.command == "move" else ())]
    for name in names:
        if arguments.command in ("undo", "trash"):
            assert resolve_trashed(KEPT, name)
        elif arguments.command in ("pull", "adopt"):
            assert resolve_pull(MODELS, name, HUB)
        else:
            assert resolve(MODELS, name).catalog_id
    if arguments.command == "register":
        assert parse_hub_ref(arguments.repo, HUB)
