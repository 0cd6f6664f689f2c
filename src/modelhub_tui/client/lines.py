"""A list that has one record on each line, compared with the last one in blocks: 10,000 of them in a millisecond."""

from __future__ import annotations

SEPARATOR = b",\n"
_AT_ONCE = 32
"""Lines of a block: nearly all blocks are as they were, and in one that is not each line is looked at."""


class Lines:
    """The lines of the last list."""

    def __init__(self) -> None:
        self._blocks: list[bytes] = []

    def keep(self, lines: list[bytes]) -> None:
        """These are the lines now; none, if the list has another layout."""
        self._blocks = [SEPARATOR.join(lines[at : at + _AT_ONCE]) for at in range(0, len(lines), _AT_ONCE)]

    def all(self) -> list[bytes]:
        """The lines as they were kept."""
        return SEPARATOR.join(self._blocks).split(SEPARATOR) if self._blocks else []

    def news(self, body: bytes) -> tuple[list[tuple[int, bytes]], list[bytes]] | None:
        """What of a list is not as it was.

        Returns:
            Position and text of each line that differs, and what to `accept()` once they have been read; None when the
            list has another number of lines, or another layout.
        """
        if not self._blocks or not (body.startswith(b"[") and body.endswith(b"]")):
            return None
        changed: list[tuple[int, bytes]] = []
        blocks = self._blocks[:]
        start, last, whole = 1, len(blocks) - 1, len(body) - 1
        for number, block in enumerate(self._blocks):
            end = start + len(block)
            if body.startswith(block, start) and (end == whole if number == last else body.startswith(SEPARATOR, end)):
                start = end + len(SEPARATOR)
                continue
            before = block.split(SEPARATOR)
            end = start
            for at, old in enumerate(before, number * _AT_ONCE):
                begin = end
                end = body.find(SEPARATOR, begin)
                if (end < 0) != (number == last and at == number * _AT_ONCE + len(before) - 1):
                    return None  # there are fewer lines, or more
                end = end if end >= 0 else whole
                line = body[begin:end]
                if line != old:
                    changed.append((at, line))
                end += len(SEPARATOR)
            blocks[number] = body[start : end - len(SEPARATOR)]
            start = end
        return (changed, blocks) if start == whole + len(SEPARATOR) else None

    def accept(self, blocks: list[bytes]) -> None:
        """What `news()` told about has been read."""
        self._blocks = blocks
