"""The one place that takes secrets out of text: every log of every process, and the report of `modelhub doctor`."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable

HIDDEN = "[hidden]"
_NAMES = (
    r"proxy-authorization|authorization|set-cookie|cookie|x-[a-z-]{0,30}(?:key|token)|(?:api|admin|node|access|secret)[_-]?key|"
    r"password|passwd|[a-z_]{0,30}(?:token|secret)"
)
_SIGNED = r"signature|policy|key-pair-id|x-amz-[a-z-]+|x-goog-[a-z-]+|x-xet-[a-z-]+|sig|token"
_HARMLESS = r"download|if|wait|limit|blobs|recursive|expand|cursor|cancel|keep"
"""Parameters of a URL that may be read; of any other the value is hidden."""
_SHORTEST = 6
_SECRETS = (
    # A header to its end, as a header, as a member of a dict or JSON object, and as the pair of bytes that ASGI makes.
    (
        re.compile(rf"(?i)((?<![a-z])(?:{_NAMES})b?\\?['\"]?\s*[:=,]\s*b?\\?)(['\"])(?:(?!\2)[^\\\r\n]|\\.)+"),
        rf"\1\2{HIDDEN}",
    ),
    (
        re.compile(r"(?i)((?:proxy-)?authorization\s*[:=]\s*|(?:set-)?cookie\s*:\s*)(?!['\"])[^\r\n'\"]+"),
        rf"\1{HIDDEN}",
    ),
    (re.compile(rf"(?i)((?<![a-z])(?:{_NAMES})\s*[:=]\s*)(?![\s'\"\[])[^\s'\",;&]+"), rf"\1{HIDDEN}"),
    (re.compile(r"(?i)\b((?:bearer|basic|digest|negotiate)\s+)(?=[^\s'\",;]*[0-9=._-])[^\s'\",;]+"), rf"\1{HIDDEN}"),
    # Tokens that show by their looks: HuggingFace's, the router's and its nodes', JSON web tokens.
    (re.compile(r"\b(?!hf_endpoint\b)(?:hf|nt|sk|api_org|hf_oauth|hf_jwt)_[A-Za-z0-9_-]{6,}"), HIDDEN),
    (re.compile(r"\beyJ[A-Za-z0-9_-]{8,}(?:\.[A-Za-z0-9_-]+){1,4}"), HIDDEN),
    # Signed URLs: who has the query has the file. And who is named before the host has a password.
    (re.compile(rf"(?i)((?<![a-z])(?:{_SIGNED})=)(?!\[)[^&\s'\"<>]+"), rf"\1{HIDDEN}"),
    (re.compile(r"(://)[^/\s'\"<>?#]+@"), rf"\1{HIDDEN}@"),
)
_QUERY = re.compile(r"(https?://[^\s?'\"<>]{0,2000}\?)([^\s'\"<>#]+)")
_VALUE = re.compile(rf"(?i)(^|&)(?!(?:{_HARMLESS})=)([^=&]*)=([^&]+)")


def redact(text: str, secrets: Iterable[str] = ()) -> str:
    """Hide tokens, keys, passwords and signatures in a text.

    Args:
        secrets: Strings to hide wherever they stand; shorter ones than six characters would hide half the text and are
            left to the patterns.
    """
    for secret in secrets:
        if len(secret) >= _SHORTEST:
            text = text.replace(secret, HIDDEN)
    for pattern, instead in _SECRETS:
        text = pattern.sub(instead, text)
    return _QUERY.sub(_without_values, text)


def _without_values(url: re.Match[str]) -> str:
    query: str = url[2]
    # A query without a name for its value is all value.
    return url[1] + (_VALUE.sub(rf"\1\2={HIDDEN}", query) if "=" in query else HIDDEN)


def known_secrets() -> list[str]:
    """The secrets that this process was started with."""
    names = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "MODELHUB_API_KEY")
    return [value for name in names if (value := os.environ.get(name, ""))]
