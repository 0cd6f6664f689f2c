"""Words from outside that become a path, an address or a checksum: each has one form, and it is matched here.

A hub, a router, a cache folder and a person all name repos, revisions, commits, files and checksums, and such a word
ends up in a path or decides which bytes count as the right ones. So it is checked where it enters, before it is stored,
by one of these functions and by nothing else. `below()` is the second line: whoever makes a path from such words asks
it whether the result is still inside.

Sources: huggingface_hub's `validate_repo_id`; git-check-ref-format(1); git's object names (sha1 and sha256); what the
hub puts into an ETag (sha256 of the content for large files, git's blob sha1 for small ones).
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import urlsplit

from modelhub_tui.untrusted import clean


class BadIdentifier(ValueError):
    """A word does not have the form of what it should name; its text says so in a few words, safe to show."""


_HEX_40 = re.compile(r"[0-9a-f]{40}\Z")
_HEX_64 = re.compile(r"[0-9a-f]{64}\Z")
# 1-96 characters of [A-Za-z0-9._-], no `--`, no `..`, no edge `-` or `.`.
_REPO_PART = re.compile(r"(?!.*(?:--|\.\.))[A-Za-z0-9_](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9_])?\Z")
_REVISION = re.compile(r"(?![-/.])(?!.*(?:\.\.|//|@\{|/\.))[^\s~^:?*\[\\]{1,250}(?<![/.])\Z")
_BLOB_NAME = re.compile(r"(?!.*\.(?i:modelhub|incomplete|lock|tmp)(?:\.|\Z))[A-Za-z0-9][A-Za-z0-9._-]{0,127}\Z")
"""Our endings in any case: to many file systems they are the same name."""
_DRIVE = re.compile(r"^[A-Za-z]:")
_DEVICE = re.compile(r"(?:con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³])(?:\..*)?", re.IGNORECASE)
"""Names that are devices in every folder on Windows, where a cache folder may be mounted from."""
MAX_MODEL_NAME = 300
"""Characters: a repo with the longest owner and name, and what tells its files apart."""
_MAX_FOLDERS = 100
"""Folders in folders of one file. No repo has a tenth of it, and each is entered by itself, again and again."""
_MAX_NAME_BYTES = 255
"""What Linux file systems allow for one name."""


def repo_id(text: object) -> str:
    """Return `text` if it is `owner/name` as the hub allows it.

    Raises:
        BadIdentifier: It is not.
    """
    parts = text.split("/") if isinstance(text, str) and len(text) <= 200 else []
    if len(parts) != 2 or not all(map(_REPO_PART.match, parts)) or parts[1].endswith(".git"):
        raise BadIdentifier(f"{clean(text, 80)!r} is no repo; it looks like owner/name")
    assert isinstance(text, str)
    return text


def model_name(text: object) -> str:
    """Return `text` if a router can list a model under this name, and a node and a person can say it back.

    Raises:
        BadIdentifier: It is empty, too long, or has characters that are not shown as they are.
    """
    if not is_model_name(text):
        raise BadIdentifier(f"{clean(text, 80)!r} is no name of a model")
    assert isinstance(text, str)
    return text


def is_model_name(text: object) -> bool:
    """Whether this can name a model of a router."""
    return isinstance(text, str) and 0 < len(text) <= MAX_MODEL_NAME and clean(text, MAX_MODEL_NAME) == text


def commit(text: object) -> str:
    """Return `text` if it is a full commit: git's 40 (or, for sha256 repos, 64) hex digits, in lower case.

    Raises:
        BadIdentifier: It is not; a branch, for instance, moves and is none.
    """
    if not is_commit(text):
        raise BadIdentifier(f"{clean(text, 80)!r} is no commit")
    assert isinstance(text, str)
    return text


def is_commit(text: object) -> bool:
    """Whether this is a full commit, which never moves."""
    return isinstance(text, str) and bool(_HEX_40.match(text) or _HEX_64.match(text))


def is_checksum(text: object) -> bool:
    """Whether this can be compared with bytes: a sha256 (64 hex digits) or git's blob sha1 (40), in lower case."""
    return is_sha256(text) or is_blob_id(text)


def is_sha256(text: object) -> bool:
    """Whether this has the form of a sha256: 64 hex digits in lower case."""
    return isinstance(text, str) and bool(_HEX_64.match(text))


def is_blob_id(text: object) -> bool:
    """Whether this has the form of git's blob sha1: 40 hex digits in lower case."""
    return isinstance(text, str) and bool(_HEX_40.match(text))


def is_blob_name(text: object) -> bool:
    """Whether a file in `blobs/` may have this name: a hub's etag of any kind, and none of our own file endings."""
    return isinstance(text, str) and bool(_BLOB_NAME.match(text)) and not _DEVICE.fullmatch(text)


def revision(text: object) -> str:
    """Return `text` if it can name a branch, a tag or a commit.

    Raises:
        BadIdentifier: It cannot.
    """
    if not isinstance(text, str) or clean(text, 250) != text or not _REVISION.match(text) or not _fits_names(text):
        raise BadIdentifier(f"{clean(text, 80)!r} is no branch, tag or commit")
    return text


def safe_repo_path(path: object) -> str:
    """Return a repo file's path if it stays inside its folder, with forward slashes.

    Raises:
        BadIdentifier: Absolute, empty, with `..`, a drive letter, a UNC prefix, a backslash or a control character; or
            with a name that is a device or too long for a file system; or in too many folders.
    """
    if not isinstance(path, str) or not path or len(path) > 1024 or clean(path, 1024) != path:
        raise BadIdentifier(f"unusable file name: {clean(path, 80)!r}")
    if path.startswith(("/", "~")) or "\\" in path or _DRIVE.match(path):
        raise BadIdentifier(f"not a relative path: {clean(path, 80)!r}")
    parts = path.split("/")
    if not all(part.strip(". ") for part in parts):
        raise BadIdentifier(f"path leaves its folder: {clean(path, 80)!r}")
    if any(_DEVICE.fullmatch(part) for part in parts) or not _fits_names(path) or len(parts) > _MAX_FOLDERS:
        raise BadIdentifier(f"unusable file name: {clean(path, 80)!r}")
    return path


def _fits_names(path: str) -> bool:
    return all(len(part.encode()) <= _MAX_NAME_BYTES for part in path.split("/"))


def below(root: Path, path: Path) -> Path:
    """Return `path` if it lies below `root` when every link on the way has been followed.

    Whether `path` itself is a link is not asked: it is about to be made, replaced or removed, not entered. A `root`
    that is a link is entered: whoever made it a link wants the files there.

    Raises:
        OutsideError: It leads elsewhere.
    """
    top = os.path.realpath(root)
    there = os.path.join(os.path.realpath(path.parent), path.name)  # noqa: PTH118 - realpath gives plain strings
    if path.name in ("", ".", "..") or not there.startswith(top.rstrip(os.sep) + os.sep):
        raise OutsideError(path)
    return path


def origin(url: str) -> str:
    """Scheme, host and port of a URL, each in one form: what decides who may see a credential.

    Raises:
        ValueError: It has no valid port or host.
    """
    parts = urlsplit(url)
    scheme, host = parts.scheme.lower(), (parts.hostname or "").removesuffix(".")
    if ":" in host:
        import ipaddress

        address = ipaddress.IPv6Address(host)
        host = str(address.ipv4_mapped or f"[{address}]")
    return f"{scheme}://{host}:{parts.port or {'http': 80, 'https': 443}.get(scheme, 0)}"


class OutsideError(OSError):
    """A path leads out of the folder that it should stay in. An OSError, as it is the disk that is not as it should."""

    def __init__(self, path: Path) -> None:
        super().__init__(20, "it leads out of its folder", os.fspath(path))


def whole_number(text: object, most: int = 2**53 - 1) -> int | None:
    """The number that a text from outside holds: ASCII digits and nothing else, from 0 to `most`; None otherwise.

    `isdigit()` is true of `²`, which `int()` refuses, and `int()` takes `١`, `1_000` and any number of digits.
    """
    if isinstance(text, bytes):
        text = text.decode("latin-1")
    if not isinstance(text, str) or not (text.isascii() and text.isdigit()) or len(text) > 20:
        return None
    value = int(text)
    return value if value <= most else None


def plain_number(text: object) -> float | None:
    """A number as people write it, such as `90` or `0.5`, below 2**53; None otherwise.

    `float()` takes `nan`, `inf`, `1e999` and `1_0` as well.
    """
    whole, point, part = text.partition(".") if isinstance(text, str) else ("", "", "")
    if whole_number(whole) is None or (point and whole_number(part) is None):
        return None
    return float(f"{whole}{point}{part}")
