"""Many small files: several at a time, each worker with connections of its own, in groups that are noted together.

One after the other, each would wait for the hub and for the disk, and a model of ten thousand files for an hour.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence

from modelhub_tui.service.node.fetch import Fetcher
from modelhub_tui.service.node.manifest import File
from modelhub_tui.service.node.transport import Transport

SMALL_BYTES = 1024 * 1024
BUFFER_BYTES = 64 * 1024
_FEW = 16
"""Fewer than this are brought one after the other."""
_MOST_WORKERS = 8
_MOST_IN_GROUP = 32


def is_small(file: File) -> bool:
    """Whether a file can be one of a crowd: all is known of it, so that its bytes are all that is missing."""
    return bool(file.commit and file.digest) and file.size is not None and file.size <= SMALL_BYTES


def stretches(files: Sequence[File]) -> Iterator[range]:
    """Cut a list of files, in the order of fetching, into crowds of small files and single ones."""
    at = 0
    while at < len(files):
        end = at
        while end < len(files) and is_small(files[end]):
            end += 1
        if end - at >= _FEW:
            yield range(at, end)
            at = end
        else:
            end = max(end, at + 1)
            yield from (range(each, each + 1) for each in range(at, end))
            at = end


def bring_crowd(
    positions: range,
    files: Callable[[int], File],
    worker: Callable[[], tuple[Fetcher, Transport]],
    ending: threading.Event,
) -> None:
    """Get these small files, whole and published.

    Args:
        files: Tells the file at a position.
        worker: Makes a fetcher that stops when `ending` is set, and its transport.
        ending: Set when somebody else, or the first failure, ends it.

    Raises:
        Whatever the first fetcher that failed has raised.
    """
    firsts: dict[tuple[str, str | None], int] = {}
    for at in positions:
        firsts.setdefault((files(at).repo, files(at).etag), at)
    first = {*firsts.values()}
    # Two workers must not be at the same content: who comes later finds it there.
    for chosen in ([*firsts.values()], [at for at in positions if at not in first]):
        _bring(chosen, files, worker, ending)


def _bring(
    positions: Sequence[int],
    files: Callable[[int], File],
    worker: Callable[[], tuple[Fetcher, Transport]],
    ending: threading.Event,
) -> None:
    count = min(_MOST_WORKERS, -(-len(positions) * 2 // _FEW))
    step = max(min(len(positions) // (2 * max(count, 1)), _MOST_IN_GROUP), 1)
    groups = iter([positions[at : at + step] for at in range(0, len(positions), step)])
    lock, failures = threading.Lock(), list[BaseException]()
    workers = [worker() for _ in range(count)]

    def work(fetcher: Fetcher, transport: Transport) -> None:
        try:
            while not ending.is_set():
                with lock:
                    group = next(groups, None)
                if group is None:
                    return
                fetcher.bring_group({at: files(at) for at in group})
        except BaseException as error:
            failures.append(error)
            ending.set()
            for _, each in workers:
                each.abort()
        finally:
            transport.close()

    threads = [threading.Thread(target=work, args=each, name="small files", daemon=True) for each in workers]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    if failures:
        raise failures[0]
