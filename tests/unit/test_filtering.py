"""Filtering and sorting: what is found, in which order, and that the shortcuts never change the answer."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelhub_tui.domain import Gpu, HubStats, Model, ModelState, Node, NodeStatus
from modelhub_tui.filtering import Filter, ModelView, SortKey, apply, capability_counts, tag_counts
from modelhub_tui.search_texts import words


def model(title: str, **changes: object) -> Model:
    given_values = {
        "key": title.lower(),
        "name": f"owner/{title.lower().replace(' ', '-')}",
        "title": title,
        "description": "",
        "repo": f"Owner/{title.replace(' ', '-')}",
        "file": None,
        "state": ModelState.AVAILABLE,
    }
    return Model(**{**given_values, **changes})  # type: ignore[arg-type]


MODELS = (
    model("DeepSeek Coder", tags=("coding",), size_bytes=30, required_memory_bytes=45, stats=HubStats(5, 50)),
    model("Qwen2.5 Coder 7B", tags=("coding", "chat"), size_bytes=10, required_memory_bytes=15, stats=HubStats(90, 1)),
    model("Encoder Small", tags=("embedding",), capabilities=("embedding",), state=ModelState.DOWNLOADED),
    model("Codestral", tags=("coding",), size_bytes=20, required_memory_bytes=30, state=ModelState.FAILED),
    model("LLaVA", tags=("chat",), capabilities=("text_generation", "vision"), state=ModelState.DOWNLOADING),
)
GPU = Node("1", "gpu", NodeStatus.ONLINE, gpus=(Gpu("card", 30),), ram_bytes=1000)


def titles(**wanted: object) -> list[str]:
    sort = wanted.pop("sort", SortKey.CATALOG)
    nodes = wanted.pop("nodes", ())
    return [each.title for each in apply(MODELS, Filter(**wanted), sort, nodes)]  # type: ignore[arg-type]


def test_without_a_filter_everything_shows_and_nothing_is_copied() -> None:
    assert apply(MODELS) is MODELS


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", [each.title for each in MODELS]),
        ("   ", [each.title for each in MODELS]),
        ("qwen", ["Qwen2.5 Coder 7B"]),
        ("QWEN2.5", ["Qwen2.5 Coder 7B"]),
        ("7b coder", ["Qwen2.5 Coder 7B"]),
        ("owner/qwen2.5-coder", ["Qwen2.5 Coder 7B"]),
        ("embedding", ["Encoder Small"]),
        ("nothing-like-it", []),
        # Words that start so in the title come first; hits in the middle or in tags follow, in catalog order.
        ("cod", ["DeepSeek Coder", "Qwen2.5 Coder 7B", "Codestral", "Encoder Small"]),
        ("chat", ["Qwen2.5 Coder 7B", "LLaVA"]),
    ],
)
def test_words_are_looked_for_in_title_names_and_tags(text: str, found: list[str]) -> None:
    assert titles(text=text) == found


def test_an_explicit_order_beats_the_better_match() -> None:
    assert titles(text="cod", sort=SortKey.NAME) == ["Codestral", "DeepSeek Coder", "Encoder Small", "Qwen2.5 Coder 7B"]


@pytest.mark.parametrize(
    ("sort", "first", "last"),
    [
        (SortKey.NAME, "Codestral", "Qwen2.5 Coder 7B"),
        (SortKey.SIZE, "Qwen2.5 Coder 7B", "LLaVA"),
        (SortKey.MEMORY, "Qwen2.5 Coder 7B", "LLaVA"),
        (SortKey.DOWNLOADS, "Qwen2.5 Coder 7B", "LLaVA"),
        (SortKey.LIKES, "DeepSeek Coder", "LLaVA"),
        (SortKey.STATE, "Codestral", "Qwen2.5 Coder 7B"),
        (SortKey.CATALOG, "DeepSeek Coder", "LLaVA"),
    ],
)
def test_orders_put_the_unknown_last(sort: SortKey, first: str, last: str) -> None:
    found = titles(sort=sort)
    assert (found[0], found[-1]) == (first, last)
    assert sorted(found) == sorted(each.title for each in MODELS)


def test_the_sort_key_goes_round() -> None:
    seen, key = [], SortKey.CATALOG
    for _ in SortKey:
        seen.append(key)
        key = key.following
    assert seen == list(SortKey)
    assert key is SortKey.CATALOG


def test_states_are_any_of_tags_and_capabilities_all_of() -> None:
    assert titles(states=frozenset({ModelState.FAILED, ModelState.DOWNLOADED})) == ["Encoder Small", "Codestral"]
    assert titles(tags=frozenset({"coding", "chat"})) == ["Qwen2.5 Coder 7B"]
    assert titles(capabilities=frozenset({"vision", "text_generation"})) == ["LLaVA"]
    assert titles(text="cod", tags=frozenset({"embedding"})) == ["Encoder Small"]


def test_fits_means_known_to_fit() -> None:
    assert titles(fits_only=True, nodes=(GPU,)) == ["Qwen2.5 Coder 7B", "Codestral"]
    assert titles(fits_only=True) == []


def test_a_stronger_node_lets_more_fit() -> None:
    view = ModelView()
    assert len(view.show(MODELS, Filter(fits_only=True), SortKey.CATALOG, (GPU,))) == 2
    strong = replace(GPU, gpus=(Gpu("card", 45),))
    assert len(view.show(MODELS, Filter(fits_only=True), SortKey.CATALOG, (GPU, strong))) == 3


def test_counts_are_most_frequent_first() -> None:
    assert list(tag_counts(MODELS).items()) == [("coding", 3), ("chat", 2), ("embedding", 1)]
    assert capability_counts(MODELS) == {"embedding": 1, "text_generation": 1, "vision": 1}


def test_words_are_split_at_separators_and_the_longest_comes_first() -> None:
    assert words("Owner/Model-7B q2.5") == ("model", "owner", "q2.5", "7b")


_texts = st.text(alphabet="aAbB ./-_", max_size=8)
_models = st.lists(
    st.builds(
        lambda n, title, tag, state, size: model(title, key=str(n), tags=(tag,), state=state, size_bytes=size),
        st.integers(0, 10_000),
        _texts,
        _texts,
        st.sampled_from(list(ModelState)),
        st.one_of(st.none(), st.integers(0, 5)),
    ),
    max_size=12,
).map(tuple)
_filters = st.builds(
    Filter, text=_texts, states=st.frozensets(st.sampled_from(list(ModelState)), max_size=2), fits_only=st.just(False)
)


@given(st.lists(st.tuples(_models, _filters, st.sampled_from(list(SortKey))), min_size=1, max_size=6))
def test_a_view_that_remembers_answers_like_one_that_does_not(
    steps: list[tuple[tuple[Model, ...], Filter, SortKey]],
) -> None:
    view = ModelView()
    for models, wanted, sort in steps:
        assert view.show(models, wanted, sort) == apply(models, wanted, sort)


@given(_models, _texts, st.randoms())
def test_typing_letter_by_letter_ends_where_pasting_does(
    models: tuple[Model, ...], text: str, chance: random.Random
) -> None:
    view, current = ModelView(), models
    for end in range(len(text) + 1):
        # Between two keys a model makes progress: another object, another state, the same texts.
        current = tuple(
            replace(each, state=chance.choice(list(ModelState))) if chance.random() < 0.3 else each for each in current
        )
        assert view.show(current, Filter(text=text[:end]), SortKey.STATE) == apply(
            current, Filter(text=text[:end]), SortKey.STATE
        )


def test_progress_re_uses_order_and_texts() -> None:
    view = ModelView()
    view.show(MODELS, Filter(text="cod"), SortKey.NAME)
    gathered = view._ordered
    assert gathered is not None
    later = (replace(MODELS[0], state=ModelState.DOWNLOADING), *MODELS[1:])
    assert view.show(later, Filter(text="code"), SortKey.NAME) == apply(later, Filter(text="code"), SortKey.NAME)
    assert view._ordered is gathered
