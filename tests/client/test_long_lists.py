"""Lists of any length: read in parts, cut where too long, which is said; work grows with the list and no faster."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelhub_tui import net
from modelhub_tui.client import pieces, wire
from modelhub_tui.domain import Node, NodeStatus, RouterModel, RouterReport
from modelhub_tui.states import fit, join_models
from tests.cli.conftest import CommandLine, modelhub  # noqa: F401 - a fixture

_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.sampled_from(['\\"', "[", "}", "\ud800", "\U0001f600"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(st.lists(_JSON, max_size=8), st.integers(1, 40), st.booleans(), st.sampled_from([None, 1]))
def test_a_list_read_in_parts_is_the_list(value: list[Any], window: int, ascii: bool, indent: int | None) -> None:
    body = json.dumps(value, ensure_ascii=ascii, indent=indent).encode("utf-8", "surrogatepass")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pieces, "WINDOW_BYTES", window)
        found = [*pieces.pieces(body)]
    assert [told for _, told in found] == value and all(json.loads(text) == told for text, told in found)


@given(st.binary(max_size=60) | st.text('[]{},:"1 a\n', max_size=40).map(str.encode), st.integers(1, 9))
def test_what_is_no_list_is_refused_as_one_that_is_parsed_at_once(body: bytes, window: int) -> None:
    try:
        wanted = net.loads(body)
    except ValueError:
        wanted = None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pieces, "WINDOW_BYTES", window)
        if isinstance(wanted, list):
            assert [told for _, told in pieces.pieces(body)] == wanted
        else:
            with pytest.raises(ValueError):
                [*pieces.pieces(body)]


def _body(count: int, separator: str, **more: Any) -> bytes:
    records = ({"name": f"acme/m{number}", "registered": True, **more} for number in range(count))
    return f"[{separator.join(map(json.dumps, records))}]".encode()


@pytest.mark.parametrize("separator", [",\n", ","], ids=["our own", "any other"])
def test_a_list_that_is_too_long_is_cut_and_says_so(separator: str) -> None:
    reader = wire.ListReader(wire.read_model, "models", 5)
    for count in (4, 9, 10, 6):
        found = reader.read(_body(count, separator))
        assert [each.name for each in found] == [f"acme/m{number}" for number in range(min(count, 5))]
        assert (reader.notice != "") is (count > 5)
    assert reader.notice == "The router lists more models than can be shown; the first 5 are."
    assert len(reader.read(_body(5, separator))) == 5 and reader.notice == ""


@pytest.mark.parametrize("separator", [",\n", ","], ids=["our own", "any other"])
def test_so_is_one_of_too_many_parts(separator: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "_MOST_PARTS", 20)
    reader = wire.models_reader()
    found = reader.read(_body(9, separator, placements=[{"node": "a"}, {"node": "b"}, {"node": "c"}]))
    assert len(found) == 6 and "the first 6 are" in reader.notice


def test_a_body_that_is_no_list_is_not_parsed_whatever_its_length() -> None:
    with pytest.raises(wire.WrongShapeError):
        wire.read_trash(b"[" + b"[]," * (net.LONGEST_JSON_BYTES // 3) + b"[]]")


def _calls(work: Callable[[], object]) -> int:
    count = 0

    def seen(_frame: object, event: str, _what: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(seen)
    try:
        work()
    finally:
        sys.setprofile(None)
    return count


def test_four_times_the_models_and_nodes_take_four_times_the_work() -> None:
    def work(count: int) -> int:
        models = tuple(RouterModel(f"acme/m{n}", f"acme/m{n}", None, registered=True) for n in range(count))
        nodes = tuple(Node(f"n{n}", f"n{n}", NodeStatus.OFFLINE, ram_bytes=5) for n in range(count))

        def look() -> None:
            for model in join_models((), RouterReport(models, nodes)):
                fit(model.required_memory_bytes or 7, nodes)

        return _calls(look) + _calls(lambda: wire.models_reader().read(_body(count, ",")))

    assert work(800) < 5 * work(200)


def test_list_says_what_it_leaves_out(modelhub: CommandLine) -> None:  # noqa: F811
    modelhub.client.current = RouterReport(notices=("The router lists more models than can be shown; …",))
    said = modelhub("list")
    assert said.code == 0 and "more models than can be shown" in said.err
