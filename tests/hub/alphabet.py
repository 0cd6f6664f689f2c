"""What a hostile hub says: words of every bad kind, for every place in which a hub has a say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from tests.hub.faults import DROP

MEMBERS = (
    *("id", "modelId", "author", "sha", "lastModified", "createdAt", "private", "gated", "disabled", "downloads"),
    *("likes", "tags", "tags.*", "pipeline_tag", "library_name", "cardData", "cardData.license", "config"),
    *("config.max_position_embeddings", "config.tokenizer_config.chat_template", "safetensors", "safetensors.total"),
    *("gguf", "gguf.total", "gguf.architecture", "gguf.context_length", "gguf.chat_template", "siblings"),
    *("siblings.*", "siblings.*.rfilename", "siblings.*.size", "siblings.*.blobId", "siblings.*.lfs"),
    *("siblings.*.lfs.sha256", "siblings.*.lfs.size", "siblings.*.lfs.pointerSize"),
)
"""Of the JSON about a repo, as `Fault.json` names them."""
HEADERS = (
    *("X-Repo-Commit", "ETag", "X-Linked-Etag", "X-Linked-Size", "X-Xet-Hash", "Link", "Location", "Retry-After"),
    *("X-Error-Code", "X-Error-Message", "X-Request-Id", "Content-Type", "Content-Encoding", "Set-Cookie", "RateLimit"),
)
FORGED = "2026-01-01 00:00:00,000 CRITICAL forged: all is well"
"""On a line of its own, it looks like a record of ours."""


def words(targets: list[Path], start: int = 0) -> st.SearchStrategy[Any]:
    """Anything that JSON can hold, most of it chosen by somebody who knows what a careless program does with it.

    Args:
        targets: Files and folders that a path may aim at. Nothing else of this machine is named.
        start: Which word is the simplest: that is what Hypothesis tries first in every place.
    """
    up = "../" * 14
    aimed = [word for each in targets for word in (str(each), up + str(each).lstrip("/"), f"a/../../../..{each}")]
    chosen = [
        *aimed,
        *("..", ".", "", "/", "../..", "a/../../b", "~", "~/x", "$HOME/x", "a//b", "C:\\x", "\\\\host\\share", "con"),
        *("..%2f..%2fx", "%00", "-rf", "--help", "main", "HEAD", "refs/pr/1", ".git", ".locks", "blobs", "x.modelhub"),
        *("evil\x07/x", "a\x1b]0;owned\x07/b", "\x1b[2J", "\x9b31m", "\x00", "a\x00b", "a\u202eb/c", "a\u200bb"),
        *("a\ud800", "\udfff/x", "\uffff", "\u2028", "\r", f"x\n{FORGED}", f"x\r\n{FORGED}\r\n", f"\x85{FORGED}"),
        *("x" * 300, "x/" * 3000, "a/" + "b" * 96, "é" * 200, "e\u0301" * 99, "\u0301" * 500, "eyJ-" * 2000),
        *("²", "١", "1_000", "-1", "1e400", "9" * 400, "0x10", "[bold red]x[/]", "'; DROP TABLE models; --", "{0}"),
        *("a" * 40, "A" * 40, "0" * 64, "deadbeef", f"{'0' * 64}-gzip", f'W/"{"0" * 40}"', "d41d8cd98f00b204e9800998"),
        *("http://127.0.0.1:9/x", "http://[::1", "file:///x", "//x", "javascript:x", "ftp://127.0.0.1/x", "http:///"),
        *('<http://127.0.0.1:9/>; rel="next"', "<x>; rel=xet-auth", "acme/m", "ACME/other", "acme/m.git", "a/b/c"),
        *("GatedRepo", "RepoNotFound", "RevisionNotFound", "EntryNotFound", "text/html", "gzip, br", "zstd"),
    ]
    start %= len(chosen)
    chosen = [*chosen[start:], *chosen[:start]]
    odd = [None, True, False, 0, -1, 2**53, 2**63, -(2**70), 10**300, 1.5, float("nan"), float("inf"), [], {}, [[]]]
    text = st.one_of(st.sampled_from(chosen), st.text(max_size=20), st.sampled_from(aimed))
    flat = st.one_of(text, text, text, st.sampled_from(odd), st.just(DROP))
    whole = st.one_of(text, st.sampled_from(odd))
    nested = st.one_of(st.lists(whole, max_size=4), st.dictionaries(text, whole, max_size=3))
    return st.one_of(flat, flat, flat, nested)


def header(word: Any) -> str | None:
    """The word as a header's value, byte for byte; None leaves the header out."""
    if word is DROP or word is None:
        return None
    return str(word).encode("utf-8", "surrogatepass").decode("latin-1")
