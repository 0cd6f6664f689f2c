"""What models are searched by, and which of them have a word: kept in pages, so that a search may stop at any of them.

No step of a search takes a line of Python for each model. A mask is a number with a byte for each model of a page, 1
where it is meant.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from itertools import chain, repeat
from operator import contains

from modelhub_tui.domain import Model

PAGE = 1000
"""Models to a page. Texts of their own would take 12 MiB more at 100,000 models."""
# Word separators of model names. The dot stays: "2.5" is one word.
_SEPARATORS = str.maketrans(dict.fromkeys("-_/:,()[]", " "))


def words(text: str) -> tuple[str, ...]:
    """The words to look for, case folded, longest first: the rarest word narrows most."""
    return tuple(sorted(set(text.casefold().translate(_SEPARATORS).split()), key=lambda word: (-len(word), word)))


def _folded(texts: list[str]) -> list[str]:
    """Each text, case folded, its words set apart by spaces. All at once: one by one it takes eight times as long."""
    folded = "\n".join(texts).casefold().translate(_SEPARATORS).split("\n")
    if len(folded) == len(texts):
        return folded
    return [text.casefold().translate(_SEPARATORS).replace("\n", " ") for text in texts]


class Texts:
    """What models are searched by, in their order, a line for each model; each tags once."""

    def __init__(self) -> None:
        self.count = 0
        """Models so far."""
        self._lines: list[str] = []
        """Pages: title, name and repo."""
        self._titles: list[str] = []
        """Pages: the title alone, with a space before each word."""
        self._tagged: list[array[int]] = []
        """Pages: position of the tags in `_tags`."""
        self._tags: dict[tuple[str, ...], int] = {}

    @property
    def pages(self) -> int:
        """How many pages there are."""
        return len(self._lines)

    def add(self, models: Sequence[Model]) -> None:
        """Prepare the next models: whole pages of them, or the last."""
        for begin in range(0, len(models), PAGE):
            page = models[begin : begin + PAGE]
            titles = _folded([f" {model.title}" for model in page])
            # What the name says anyway need not be kept twice.
            names = _folded([f"{each.name} {'' if each.repo.lower() in each.name else each.repo}" for each in page])
            tagged = [self._tags.setdefault(model.tags, len(self._tags)) for model in page]
            self._add(list(map("{} {}".format, titles, names)), titles, tagged)

    def _add(self, lines: list[str], titles: list[str], tagged: list[int]) -> None:
        self._lines.append("\n".join(lines))
        self._titles.append("\n".join(titles))
        self._tagged.append(array("I", tagged))
        self.count += len(lines)

    def arranged(self, order: list[int]) -> Texts:
        """The same, in another order; only those in it."""
        lines, titles = ("\n".join(pages).split("\n") for pages in (self._lines, self._titles))
        tagged = [*chain.from_iterable(self._tagged)]
        made = Texts()
        made._tags = self._tags
        for begin in range(0, len(order), PAGE):
            page = order[begin : begin + PAGE]
            made._add([lines[at] for at in page], [titles[at] for at in page], [tagged[at] for at in page])
        return made

    def tagged_with(self, word: str) -> bytes:
        """Which of all tags have a word: a byte for each."""
        return bytes(map(contains, _folded([" ".join(each) for each in self._tags]), repeat(word)))

    def found_on(self, page: int, word: str, tagged: bytes) -> int:
        """Mask of a page: who has the word, or tags that have."""
        found = _lines_with(word, self._lines[page])
        return found | _mask(map(tagged.__getitem__, self._tagged[page])) if any(tagged) else found

    def starts_on(self, page: int, word: str) -> int:
        """Mask of a page: in whose title a word starts so."""
        return _lines_with(f" {word}", self._titles[page])


class Word:
    """Where a word is found, page by page as far as anybody has looked."""

    def __init__(self, texts: Texts, word: str) -> None:
        self._texts, self._word = texts, word
        self._tagged = texts.tagged_with(word)
        self.found: dict[int, int] = {}
        """Masks by page: who has it."""
        self.starts: dict[int, int] = {}
        """Masks by page: in whose title a word starts so."""

    def found_on(self, page: int) -> int:
        """Mask of a page."""
        mask = self.found.get(page)
        if mask is None:
            mask = self.found[page] = self._texts.found_on(page, self._word, self._tagged)
        return mask

    def starts_on(self, page: int) -> int:
        """Mask of a page."""
        mask = self.starts.get(page)
        if mask is None:
            mask = self.starts[page] = self._texts.starts_on(page, self._word)
        return mask


def _lines_with(word: str, page: str) -> int:
    # Most words are rare: that a whole page has none is found at many times the speed.
    return _mask(map(contains, page.split("\n"), repeat(word))) if word in page else 0


def _mask(found: Iterable[int]) -> int:
    return int.from_bytes(bytes(found), "little")
