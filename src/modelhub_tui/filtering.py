"""Which models a list shows, and in which order. Pure: the screens and the command line use the same functions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from enum import StrEnum
from itertools import compress

from modelhub_tui.domain import Model, ModelState, Node
from modelhub_tui.fleet_state import changed_at
from modelhub_tui.search_texts import PAGE, Texts, Word, words
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
PAGES_AT_ONCE = 10
"""A search looks at so many pages before it stops at a screenful: in a shorter list it always finds everything."""


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


def _said(model: Model) -> tuple[object, ...]:
    """What of a model can be searched for, and whose it is."""
    return model.key, model.title, model.name, model.repo, model.tags


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

    Sorting happens once per order, and an update of a few models (progress) re-uses everything. A search may stop when
    it has found a screenful, and go on when asked again: a key then costs the same in 100,000 models as in 10,000.
    """

    def __init__(self) -> None:
        self.complete = True
        """Whether the last answer was all there is to show."""
        self._models: tuple[Model, ...] = ()
        self._strongest: tuple[Node, ...] = ()
        """The nodes that decide what fits."""
        self._wanted = Filter()
        """The last filter, without its text."""
        self._sort = SortKey.CATALOG
        self._order: list[int] | None = None
        """Positions in `_models` that pass the filter without its text, sorted; None when all do as they are."""
        self._texts: Texts | None = None
        """Of all `_models`; made when somebody first searches."""
        self._folding = Texts()
        """Of as many of them as have been prepared."""
        self._ordered: Texts | None = None
        """The same, those of `_order` in that order."""
        self._words: dict[str, Word] = {}
        """Lately looked for, the last one last."""

    def show(
        self,
        models: tuple[Model, ...],
        wanted: Filter,
        sort: SortKey,
        nodes: tuple[Node, ...] = (),
        *,
        enough: int | None = None,
        pages: int = PAGES_AT_ONCE,
    ) -> tuple[Model, ...]:
        """Return the models to show, in order.

        Args:
            enough: A search may stop once it has looked at `pages` new pages and found so many models; `complete` says
                whether it did. What it has found are the first of all that it will find: asked again it goes on.
            pages: See there.
        """
        facets = replace(wanted, text="")
        same_texts, same_order = self._compare(models)
        if not same_texts:
            self._texts, self._folding = None, Texts()
        self._models = models
        stronger = wanted.fits_only and _memory(strongest(nodes)) != _memory(self._strongest)
        if stronger or not same_order or facets != self._wanted or sort is not self._sort:
            self._wanted, self._sort, self._strongest = facets, sort, strongest(nodes)
            self._arrange()
        passing = models if self._order is None else tuple([models[at] for at in self._order])
        self.complete = True
        if self._ordered is None:
            self._words = {}
        if not (asked := words(wanted.text)):
            return passing
        found: list[Model] = []
        new_pages = 0
        for is_new, hits in self._hits(passing, [self._word(each, len(asked)) for each in asked]):
            found += hits
            new_pages += is_new
            if enough is not None and new_pages >= pages and len(found) >= enough:
                self.complete = False
                break
        return tuple(found)

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

    def _word(self, text: str, asked: int) -> Word:
        """Where a word is found, as far as that is known."""
        word = self._words.pop(text, None) or Word(self._gathered(), text)
        self._words[text] = word  # put in anew: the words of longest ago come first
        for each in [*self._words][: -max(_KEPT, asked)]:
            del self._words[each]
        return word

    def _hits(self, passing: tuple[Model, ...], asked: Sequence[Word]) -> Iterator[tuple[bool, Iterable[Model]]]:
        """Models that have all words, page by page, and whether it had to be looked for.

        In catalog order those whose title has words that start so come before the others.
        """
        pages = range(self._gathered().pages)
        ranked = self._sort is SortKey.CATALOG
        for page in pages if ranked else ():
            is_new = page not in asked[0].starts
            if mask := _all(word.starts_on(page) for word in asked):
                yield is_new, _chosen(passing, page, mask)
            elif is_new:
                yield True, ()
        for page in pages:
            is_new = page not in asked[0].found
            mask = _all(word.found_on(page) for word in asked)
            if mask and ranked:
                mask &= ~_all(word.starts_on(page) for word in asked)
            if mask or is_new:
                yield is_new, _chosen(passing, page, mask) if mask else ()

    @property
    def prepared(self) -> bool:
        """Whether all texts are ready to be searched."""
        return self._texts is not None or not self._models

    def prepare(self, pages: int) -> bool:
        """Get the texts of so many more pages of models ready to be searched; True once all are.

        For the idle moments before somebody searches: all of 100,000 at once would hold up the first key for 0.3 s.
        """
        if self._texts is None:
            begun = self._folding.count
            self._folding.add(self._models[begun : begun + pages * PAGE])
            if self._folding.count >= len(self._models):
                self._texts, self._folding = self._folding, Texts()
        return self._texts is not None

    def _gathered(self) -> Texts:
        """The texts in the order they are looked through."""
        if self._ordered is None:
            while not self.prepare(1):
                pass
            texts, order = self._texts or Texts(), self._order
            self._ordered = texts if order is None else texts.arranged(order)
        return self._ordered


def _all(masks: Iterable[int]) -> int:
    """What is in all masks; none is asked for in vain."""
    both = -1
    for mask in masks:
        both &= mask
        if not both:
            break
    return both


def _chosen(models: tuple[Model, ...], page: int, mask: int) -> Iterable[Model]:
    return compress(models[page * PAGE : (page + 1) * PAGE], mask.to_bytes(PAGE, "little"))


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
