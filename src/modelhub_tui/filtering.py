"""Which models a list shows, and in which order. Pure: the screens and the command line use the same functions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from enum import StrEnum
from functools import reduce
from itertools import accumulate, compress, repeat
from operator import and_, contains

from modelhub_tui.domain import Model, ModelState, Node
from modelhub_tui.fleet_state import changed_at
from modelhub_tui.states import FitKind, fit
from modelhub_tui.values import dataclass


@dataclass(frozen=True, slots=True)
class Filter:
    """What a person asked to see. Everything that is set must hold."""

    text: str = ""
    """Words that all occur in the title, the names, the repo or the tags; case does not matter."""
    states: frozenset[ModelState] = frozenset()
    """Any of these; empty means all."""
    tags: frozenset[str] = frozenset()
    """All of these: each one more narrows the list."""
    capabilities: frozenset[str] = frozenset()
    """All of these."""
    fits_only: bool = False
    """Only models known to fit a node's memory."""

    @property
    def choices(self) -> int:
        """How many things are chosen, not counting the text."""
        return len(self.tags) + len(self.capabilities) + self.fits_only + bool(self.states)


class SortKey(StrEnum):
    """Order of a list. Unknown values come last, equal ones keep the catalog's order."""

    CATALOG = "catalog"
    """As curated; a search moves titles with a word that starts so to the front."""
    NAME = "name"
    SIZE = "size"
    """Smallest first."""
    LARGEST = "largest"
    """Largest first: what it takes on disk, or would."""
    MEMORY = "memory"
    """Least demanding first."""
    DOWNLOADS = "downloads"
    """Most popular first."""
    LIKES = "likes"
    STATE = "state"
    """What moves or failed first, then what is there, then the rest."""

    @property
    def following(self) -> SortKey:
        """The order that one more press of the sort key gives."""
        all_keys = list(SortKey)
        return all_keys[(all_keys.index(self) + 1) % len(all_keys)]


_STATE_ORDER = {
    state: rank
    for rank, state in enumerate(
        (
            ModelState.FAILED,
            ModelState.DOWNLOADING,
            ModelState.QUEUED,
            ModelState.PAUSED,
            ModelState.DELETING,
            ModelState.DOWNLOADED,
            ModelState.AVAILABLE,
        )
    )
}
_LAST = float("inf")
_KEPT = 8
"""Words whose hits are kept, so that taking letters back costs nothing; 200 kB each at 100,000 models."""


def _up(value: int | None) -> float:
    return _LAST if value is None else value


def _down(value: int | None) -> float:
    return _LAST if value is None else -value


_ORDER: dict[SortKey, Callable[[Model], float | str]] = {
    SortKey.NAME: lambda model: model.title.casefold(),
    SortKey.SIZE: lambda model: _up(model.size_bytes),
    SortKey.LARGEST: lambda model: _down(model.disk_bytes or model.size_bytes),
    SortKey.MEMORY: lambda model: _up(model.required_memory_bytes),
    SortKey.DOWNLOADS: lambda model: _down(model.stats.downloads if model.stats else None),
    SortKey.LIKES: lambda model: _down(model.stats.likes if model.stats else None),
    SortKey.STATE: lambda model: _STATE_ORDER[model.state],
}

# Word separators of model names. The dot stays: "2.5" is one word.
_SEPARATORS = str.maketrans(dict.fromkeys("-_/:,()[]", " "))


def _said(model: Model) -> tuple[object, ...]:
    """What of a model can be searched for, and whose it is."""
    return model.key, model.title, model.name, model.repo, model.tags


def words(text: str) -> tuple[str, ...]:
    """The words to look for, case folded, longest first: the rarest word narrows most."""
    return tuple(sorted(set(text.casefold().translate(_SEPARATORS).split()), key=lambda word: (-len(word), word)))


def _folded(texts: list[str]) -> list[str]:
    """Each text, case folded, its words set apart by spaces. All at once: one by one it takes eight times as long."""
    folded = "\n".join(texts).casefold().translate(_SEPARATORS).split("\n")
    if len(folded) == len(texts):
        return folded
    return [text.casefold().translate(_SEPARATORS).replace("\n", " ") for text in texts]


class _Texts:
    """What models are searched by, in their order. Kept small: a text for each, all titles in a few, each tags once."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        """Title, name and repo of each model."""
        self.titles: list[str] = []
        """The titles of many models each, a line for each model, with a space before each word."""
        self.tagged: list[int] = []
        """Position of each model's tags in `tags`."""
        self.tags: dict[tuple[str, ...], int] = {}

    def add(self, models: Sequence[Model]) -> None:
        """Prepare the next models."""
        titles = _folded([f" {model.title}" for model in models])
        # What the name says anyway need not be kept twice.
        names = _folded([f"{each.name} {'' if each.repo.lower() in each.name else each.repo}" for each in models])
        self.texts += map("{} {}".format, titles, names)
        self.titles.append("\n".join(titles))
        self.tagged += [self.tags.setdefault(model.tags, len(self.tags)) for model in models]

    def arranged(self, order: list[int]) -> _Texts:
        """The same, in another order; only those in it."""
        made, titles = _Texts(), "\n".join(self.titles).split("\n")
        made.texts, made.tagged = [self.texts[at] for at in order], [self.tagged[at] for at in order]
        made.titles, made.tags = ["\n".join([titles[at] for at in order])], self.tags
        return made

    def look_for(self, word: str) -> tuple[int, int]:
        """Masks: where the word is found, and where a word of the title starts so."""
        found = _mask(map(contains, self.texts, repeat(word)))
        by_tags = bytes(map(contains, _folded([" ".join(each) for each in self.tags]), repeat(word)))
        if any(by_tags):
            found |= _mask(map(by_tags.__getitem__, self.tagged))
        # The lines before each place where the title has it: as fast as there are few.
        pieces = "\n".join(self.titles).split(f" {word}")[:-1]
        starts = bytearray(len(self.texts))
        for line in accumulate(map(str.count, pieces, repeat("\n"))):
            starts[line] = 1
        return found, _mask(starts)


def apply(
    models: Sequence[Model],
    wanted: Filter = Filter(),  # noqa: B008 - frozen
    sort: SortKey = SortKey.CATALOG,
    nodes: Sequence[Node] = (),
) -> tuple[Model, ...]:
    """Filter and sort once. To ask again and again as somebody types, keep a `ModelView`."""
    return ModelView().show(tuple(models), wanted, sort, tuple(nodes))


class ModelView:
    """Filters and sorts, and keeps what makes the next, similar question cheap.

    Sorting happens once per order, and an update of a few models (progress) re-uses everything. What a word is found in
    is a mask: a number with a byte for each model, 1 where it is. No step of a search takes a line of Python per model,
    so that one more key of a search through 100,000 of them costs some 10 ms.
    """

    def __init__(self) -> None:
        self._models: tuple[Model, ...] = ()
        self._strongest: tuple[Node, ...] = ()
        """The nodes that decide what fits."""
        self._wanted = Filter()
        """The last filter, without its text."""
        self._sort = SortKey.CATALOG
        self._order: list[int] | None = None
        """Positions in `_models` that pass the filter without its text, sorted; None when all do as they are."""
        self._texts: _Texts | None = None
        """Of all `_models`; made when somebody first searches."""
        self._folding = _Texts()
        """Of as many of them as have been prepared."""
        self._ordered: _Texts | None = None
        """The same, those of `_order` in that order."""
        self._masks: dict[str, tuple[int, int]] = {}
        """By words lately looked for, the last one last: where it is found, and where a word of the title starts so."""

    def show(
        self, models: tuple[Model, ...], wanted: Filter, sort: SortKey, nodes: tuple[Node, ...] = ()
    ) -> tuple[Model, ...]:
        """Return the models to show, in order."""
        facets = replace(wanted, text="")
        same_texts, same_order = self._compare(models)
        if not same_texts:
            self._texts, self._folding = None, _Texts()
        self._models = models
        stronger = wanted.fits_only and _memory(strongest(nodes)) != _memory(self._strongest)
        if stronger or not same_order or facets != self._wanted or sort is not self._sort:
            self._wanted, self._sort, self._strongest = facets, sort, strongest(nodes)
            self._arrange()
        passing = models if self._order is None else tuple([models[at] for at in self._order])
        return self._found(passing, words(wanted.text))

    def _compare(self, models: tuple[Model, ...]) -> tuple[bool, bool]:
        """Whether the texts, and the order, hold for these models too: both do when only progress was made."""
        if models is self._models:
            return True, True
        if len(models) != len(self._models):
            return False, False
        changed = [(self._models[at], models[at]) for at in changed_at(self._models, models)]
        same_texts = all(_said(was) == _said(now) for was, now in changed)
        return same_texts, same_texts and all(self._rank(was) == self._rank(now) for was, now in changed)

    def _rank(self, model: Model) -> tuple[object, ...]:
        """What decides whether and where a model shows."""
        place = _ORDER[self._sort](model) if self._sort in _ORDER else None
        return place, model.state if self._wanted.states else None, model.required_memory_bytes, model.capabilities

    def _arrange(self) -> None:
        models = self._models
        order = [at for at, model in enumerate(models) if self._passes(model)]
        if self._sort in _ORDER:
            place = _ORDER[self._sort]
            order.sort(key=lambda at: place(models[at]))
        self._order = None if len(order) == len(models) and self._sort not in _ORDER else order
        self._ordered = None

    def _passes(self, model: Model) -> bool:
        wanted = self._wanted
        return (
            (not wanted.states or model.state in wanted.states)
            and wanted.tags.issubset(model.tags)
            and wanted.capabilities.issubset(model.capabilities)
            and (not wanted.fits_only or fits(model, self._strongest))
        )

    def _found(self, passing: tuple[Model, ...], wanted: tuple[str, ...]) -> tuple[Model, ...]:
        """Those that have all words; in catalog order, titles with words that start so come before the others."""
        if self._ordered is None:
            self._masks = {}
        if not wanted:
            return passing
        for word in wanted:
            known = self._masks.pop(word, None)  # and put in anew: the words of longest ago come first
            self._masks[word] = known or self._gathered().look_for(word)
        for word in [*self._masks][: -max(_KEPT, len(wanted))]:
            del self._masks[word]
        hits = reduce(and_, (self._masks[word][0] for word in wanted))
        first = reduce(and_, (self._masks[word][1] for word in wanted))
        if self._sort is not SortKey.CATALOG:
            first = 0
        return (*_chosen(passing, first), *_chosen(passing, hits & ~first))

    @property
    def prepared(self) -> bool:
        """Whether all texts are ready to be searched."""
        return self._texts is not None or not self._models

    def prepare(self, count: int) -> bool:
        """Get the texts of so many more models ready to be searched; True once all are.

        For the idle moments before somebody searches: all of 100,000 at once would hold up the first key for 0.3 s.
        """
        if self._texts is None:
            begun = len(self._folding.texts)
            self._folding.add(self._models[begun : begun + count])
            if len(self._folding.texts) >= len(self._models):
                self._texts, self._folding = self._folding, _Texts()
        return self._texts is not None

    def _gathered(self) -> _Texts:
        """The texts in the order they are looked through."""
        if self._ordered is None:
            self.prepare(len(self._models))
            texts, order = self._texts or _Texts(), self._order
            self._ordered = texts if order is None else texts.arranged(order)
        return self._ordered


def _mask(found: Iterable[int]) -> int:
    return int.from_bytes(bytes(found), "little")


def _chosen(models: tuple[Model, ...], mask: int) -> Iterable[Model]:
    return compress(models, mask.to_bytes(len(models), "little"))


def fits(model: Model, nodes: Sequence[Node]) -> bool:
    """Whether a model is known to fit the memory of a node."""
    return fit(model.required_memory_bytes, nodes).kind in (FitKind.GPU, FitKind.RAM)


def strongest(nodes: Sequence[Node]) -> tuple[Node, ...]:
    """The node with most graphics memory and the one with most main memory: what fits any node fits one of them."""
    if not nodes:
        return ()
    return max(nodes, key=lambda node: node.gpu_memory_bytes), max(nodes, key=lambda node: node.ram_bytes or 0)


def _memory(nodes: Sequence[Node]) -> tuple[tuple[int, int], ...]:
    return tuple((node.gpu_memory_bytes, node.ram_bytes or 0) for node in nodes)


def tag_counts(models: Sequence[Model]) -> dict[str, int]:
    """How many models carry each tag, most used first."""
    return _counts(tag for model in models for tag in model.tags)


def capability_counts(models: Sequence[Model]) -> dict[str, int]:
    """How many models have each capability, most frequent first."""
    return _counts(each for model in models for each in model.capabilities)


def _counts(values: Iterable[str]) -> dict[str, int]:
    return dict(sorted(Counter(values).items(), key=lambda item: (-item[1], item[0])))
