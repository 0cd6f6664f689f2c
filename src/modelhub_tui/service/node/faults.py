"""Why a transfer cannot go on, as one sentence and a code. Worded here and nowhere else.

`passing` says whether the cause may go away by itself: then the node tries again without being asked.
"""

from __future__ import annotations

import errno

from modelhub_tui.disk_plan import DiskPlan
from modelhub_tui.errors import ModelHubError, NoWay
from modelhub_tui.hub_status import meaning
from modelhub_tui.identifiers import OutsideError
from modelhub_tui.proxies import BadProxy
from modelhub_tui.tls import BadCertificates
from modelhub_tui.units import human_duration, human_size
from modelhub_tui.untrusted import clean

OUTAGES = frozenset({"hub_unreachable", "hub_failed", "connection_lost", "stalled", "rate_limited", "router"})
"""Codes of what keeps a node from the hub or the router for a while: nothing is wrong with the model or the disk."""
_CONFIRMED = 3
"""So often in a row must a hub say what would condemn a model: proxies and mirrors say it by accident, too."""


class Fault(ModelHubError):
    """A transfer's trouble. `sentence` is for people, `code` for programs (see docs/wire.md)."""

    def __init__(
        self,
        code: str,
        sentence: str,
        *,
        passing: bool = False,
        retry_after_s: float | None = None,
        tries: int = 1,
        doubt: str = "",
    ) -> None:
        """Make one.

        Args:
            tries: How often it has to be found in a row before it is believed, if it is not passing.
            doubt: The sentence until then: what was found, without what follows from it.
        """
        super().__init__(code, sentence)
        self.code, self.sentence, self.passing, self.retry_after_s = code, sentence, passing, retry_after_s
        self.tries, self.doubt = tries, doubt

    def doubted(self) -> Fault:
        """As it is told while it may still be an accident."""
        return Fault(self.code, self.doubt, passing=True) if self.doubt else self

    def __str__(self) -> str:
        return self.sentence


class Stopped(Exception):
    """The work was told to stop: cancelled, or the process ends."""


def gated(endpoint: str, repo: str, *, has_token: bool) -> Fault:
    """The repo wants its licence accepted."""
    todo = (
        "accept its licence there, then retry"
        if has_token
        else "accept its licence there, set HF_TOKEN (or run `hf auth login`), restart the service and retry"
    )
    return Fault("gated", f"{repo} is gated at {endpoint}/{repo}: {todo}.")


def no_such_repo(endpoint: str, repo: str, *, has_token: bool) -> Fault:
    """Missing, or private and not ours to see."""
    hint = "the token cannot see it" if has_token else "it is private and needs HF_TOKEN"
    doubt = f"{endpoint} does not find {repo}; it is asked again."
    return Fault("no_such_repo", f"{endpoint} has no repo {repo}, or {hint}.", tries=_CONFIRMED, doubt=doubt)


def no_such_revision(repo: str, revision: str) -> Fault:
    what = f"revision {clean(revision, 60)}"
    return Fault(
        "no_such_revision",
        f"{repo} has no {what} any more: delete the model and register it again.",
        tries=_CONFIRMED,
        doubt=f"The hub does not find {what} of {repo}; it is asked again.",
    )


def no_such_file(repo: str, path: str) -> Fault:
    what = f"{clean(path, 120)} is not in {repo} any more"
    return Fault(
        "no_such_file",
        f"{what}: delete the model and register it again.",
        tries=_CONFIRMED,
        doubt=f"The hub does not find {clean(path, 120)} in {repo}; it is asked again.",
    )


def bad_token(endpoint: str) -> Fault:
    return Fault("gated", f"{endpoint} does not accept the token: set a valid HF_TOKEN, restart the service and retry.")


def disabled(repo: str) -> Fault:
    return Fault("no_such_repo", f"The hub has disabled {repo}; it cannot be downloaded.")


def rate_limited(retry_after_s: float | None) -> Fault:
    wait = f"; it asks for a pause of {human_duration(retry_after_s)}" if retry_after_s else ""
    return Fault("rate_limited", f"The hub limits our requests{wait}.", passing=True, retry_after_s=retry_after_s)


def hub_unreachable(endpoint: str, why: str = "") -> Fault:
    detail = f" ({clean(why, 120)})" if why else ""
    return Fault("hub_unreachable", f"{endpoint} cannot be reached{detail}; check the network.", passing=True)


def offline_by_wish() -> Fault:
    """Not passing: what a process was started with stays as long as the process."""
    what = "HF_HUB_OFFLINE is set for this node, so nothing is fetched"
    return Fault("hub_unreachable", f"{what}: unset it, restart the service (`modelhub stop`) and retry.")


def no_way(error: NoWay) -> Fault:
    """It says itself what stands in the way. What only a restart mends is not tried again."""
    return Fault("hub_unreachable", error.reason, passing=not isinstance(error, BadProxy | BadCertificates))


def status(host: str, number: int, retry_after_s: float | None = None, *, path: str = "") -> Fault:
    """An answer that is no success, and about which the hub says no more than its number."""
    told = meaning(number)
    if told.code == "rate_limited":
        return rate_limited(retry_after_s)
    what = f"{_named(host)} {told.what}"
    if told.passing:
        return Fault(told.code, f"{what}.", passing=True, retry_after_s=retry_after_s)
    about = f"{clean(path, 120)}: " if path else ""
    return Fault(
        told.code,
        f"{about}{what}: {told.todo}.",
        retry_after_s=retry_after_s,
        tries=_CONFIRMED,
        doubt=f"{what}; it is asked again.",
    )


def _named(host: str) -> str:
    """A host as an address names it, which may come from a redirect: without what is secret, or harms a terminal."""
    return clean(host.rpartition("@")[2], 120)


def connection_lost(host: str, why: str) -> Fault:
    return Fault("connection_lost", f"The connection to {_named(host)} broke ({clean(why, 120)}).", passing=True)


def stalled(host: str, seconds: float) -> Fault:
    return Fault("stalled", f"{_named(host)} has sent nothing for {human_duration(seconds)}.", passing=True)


def bad_answer(host: str, what: str) -> Fault:
    return Fault("connection_lost", f"{_named(host)} answered wrongly: {clean(what, 160)}.", passing=True)


def changed_upstream(repo: str, path: str, how: str = "") -> Fault:
    """`how`: what is different, such as `5 bytes instead of 4`."""
    detail = f" ({clean(how, 120)})" if how else ""
    what = f"{clean(path, 120)} in {repo} is not the file that was registered{detail}"
    return Fault(
        "changed_upstream",
        f"{what}: delete the model and register it again.",
        tries=_CONFIRMED,
        doubt=f"{what}, says the hub; it is asked again.",
    )


def pointer_sent(host: str, path: str) -> Fault:
    """A mirror without its large files, mostly. Nothing is wrong with the model."""
    what = f"{_named(host)} sent the git-lfs pointer in place of {clean(path, 120)}"
    return Fault(
        "not_weights",
        f"{what}: it lacks the file itself; retry later, or use another hub.",
        tries=_CONFIRMED,
        doubt=f"{what}; it is asked again.",
    )


def not_weights(path: str, why: str) -> Fault:
    """`why`: what is wrong with the content, as `contents.trouble()` words it."""
    return Fault("not_weights", f"{clean(path, 120)} {why}: choose another file or repo.")


def checksum(path: str) -> Fault:
    return Fault(
        "checksum",
        f"{clean(path, 120)} arrived damaged twice (wrong checksum); retry, or check the network and the disk.",
    )


def etag_mismatch(path: str, host: str, etag: str) -> Fault:
    """Nothing but the ETag tells what the content should be, and it is another."""
    kind = "a sha256" if len(etag) == 64 else "git's or a plain sha1"
    return Fault(
        "checksum",
        f"{clean(path, 120)} arrived twice with other content than its ETag at {host} tells ({len(etag)} hex digits, "
        f"read as {kind}), and no other checksum of it is known; retry, or use another hub.",
    )


def no_space(needs: int, free: int, others: int = 0, trash: int = 0) -> Fault:
    """`needs` and `others` are bytes still to be written, by this model and by those before it; `trash` is in free."""
    plan = DiskPlan(needs=needs, free=free, queued=others, trash=trash).sentence()
    return Fault("no_space", f"{plan[0].upper()}{plan[1:]}. Goes on when there is room.", passing=True)


def held() -> Fault:
    """Not a failure: a person wants it so."""
    return Fault("paused", "Paused.")


def no_names() -> Fault:
    """No inodes are left, though there may be bytes."""
    what = "The disk of the model folder cannot hold one more file (no inodes left), though it may have free bytes"
    return Fault("no_space", f"{what}: remove files there. Goes on when there is room.", passing=True)


def called_full(free: int) -> Fault:
    """ENOSPC, and the figures do not say why: reserved blocks, a quota, a file system's own bookkeeping."""
    what = f"The disk of the model folder calls itself full, though it tells of {human_size(free)} free"
    return Fault("no_space", f"{what}: a quota, or what it reserves. It is tried again now and then.", passing=True)


_DISK_TROUBLES = {
    errno.EACCES: (True, "No permission to write {name}: change its owner or mode, or set HF_HUB_CACHE."),
    errno.EROFS: (True, "{name} is on a read-only file system: set HF_HUB_CACHE to another folder."),
    errno.EEXIST: (False, "{name} is not a folder: set HF_HUB_CACHE to one, restart the service and retry."),
    errno.EFBIG: (
        False,
        "{name} would be larger than a file may be there: this file system's limit (FAT: 4 GiB) or that of the process "
        "(`ulimit -f`). Set HF_HUB_CACHE to another disk or raise the limit, restart the service and retry.",
    ),
    errno.EIO: (True, "The disk reports an error at {name}: it may be failing; look at the system's log."),
    errno.ESTALE: (True, "{name} is on a network folder that was lost (stale handle): mount it again."),
    errno.ENOTCONN: (True, "{name} is on a file system that is not connected any more: mount it again."),
    errno.ENAMETOOLONG: (
        False,
        "{name} is a longer name than this file system takes: set HF_HUB_CACHE to another one.",
    ),
    errno.EMFILE: (True, "The node has too many files open: raise its limit (`ulimit -n`)."),
    errno.ENFILE: (True, "This machine has too many files open (fs.file-max)."),
    errno.ENOMEM: (True, "This machine has no memory left for {name}."),
    errno.ENOBUFS: (True, "This machine has no memory left for its connections."),
}
"""Whether it passes, and the sentence."""
_SAME = {errno.EPERM: errno.EACCES, errno.ENOTDIR: errno.EEXIST}


def disk_trouble(error: OSError) -> Fault:
    """The file system said no. Most pass: a mount may come back, a mode may be changed."""
    name = clean(error.filename, 160) if isinstance(error.filename, str) else "the model folder"
    if isinstance(error, OutsideError):
        return Fault("disk", f"{name} is a link, and may lead out of the model cache: put a folder there, then retry.")
    if error.errno == errno.EDQUOT:
        what = "The disk quota of this user is used up in the model folder"
        return Fault(
            "no_space", f"{what}: remove files, or have it raised. It is tried again now and then.", passing=True
        )
    number = _SAME.get(error.errno or 0, error.errno)
    if number in _DISK_TROUBLES:
        passing, words = _DISK_TROUBLES[number]
        sentence = words.format(name=name)
        return Fault("disk", sentence[0].upper() + sentence[1:], passing=passing)
    return Fault("disk", f"{name} cannot be written: {clean(error.strerror or error, 120)}.", passing=True)


def short_of(error: BaseException | None) -> Fault | None:
    """The fault of a connection that failed for want of something of this machine's own; None for any other."""
    own = isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS)
    return disk_trouble(OSError(error.errno, error.strerror)) if own and isinstance(error, OSError) else None


def not_removed(error: Exception) -> Fault:
    """Files of a deleted model that are still there; the node tries again."""
    if isinstance(error, OSError):
        name = clean(error.filename, 160) if isinstance(error.filename, str) else "a file of it"
        why = clean(error.strerror or error, 120)
        return Fault("disk", f"{name} cannot be removed: {why}.", passing=True)
    return Fault("internal", f"It cannot be removed ({type(error).__name__}); the node's log says more.", passing=True)


def vanished(path: object) -> Fault:
    return Fault("disk", f"{clean(path, 160)} was removed while it was being written; it starts again.", passing=True)


def bad_manifest(why: str) -> Fault:
    return Fault("unsupported", f"The router's list of files cannot be used: {clean(why, 160)}.")


def router_failed(why: str) -> Fault:
    return Fault("router", f"The router does not give the list of files ({clean(why, 120)}).", passing=True)


def elsewhere() -> Fault:
    """Not a failure: the same file is being fetched by somebody else on this machine."""
    return Fault("busy", "Waiting: another process on this machine is fetching the same file.", passing=True)


def cache_busy() -> Fault:
    """Not a failure: another service holds the cache's lock while it removes a model."""
    return Fault("busy", "Waiting: another modelhub service is removing files from this cache.", passing=True)
