"""The one place that takes secrets out of text: every log of every process, and the report of `modelhub doctor`."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable

HIDDEN = "[hidden]"
# Every pattern costs time in proportion to the text, whatever it holds: what stands before a secret is bounded, and a
# secret is taken to its end by a possessive quantifier, which never goes back; with a bound, a rest of it would show.
_NAMES = (
    r"proxy-authorization|authorization|set-cookie|cookie|x-[a-z-]{0,30}(?:key|token)|(?:api|admin|node|access|secret)[_-]?key|"
    r"password|passwd|[a-z_]{0,30}(?:token|secret)"
)
_SIGNED = r"signature|policy|key-pair-id|x-(?:amz|goog|xet)-[a-z-]{1,40}|sig|token"
_HARMLESS = r"download|if|wait|limit|blobs|recursive|expand|cursor|cancel|keep"
"""Parameters of a URL that may be read; of any other the value is hidden."""
_SHORTEST = 6
_GAP = r"\s{0,40}"
PATTERNS = (
    # A header to its end, as a header, as a member of a dict or JSON object, and as the pair of bytes that ASGI makes.
    (
        re.compile(
            rf"(?i)((?<![a-z])(?:{_NAMES})b?\\?['\"]?{_GAP}[:=,]{_GAP}b?\\?)(['\"])(?:(?!\2)[^\\\r\n]|\\.)++",
        ),
        rf"\1\2{HIDDEN}",
    ),
    (
        re.compile(
            rf"(?i)((?:proxy-)?authorization{_GAP}[:=]{_GAP}|(?:set-)?cookie{_GAP}:{_GAP})(?!['\"])[^\r\n'\"]++"
        ),
        rf"\1{HIDDEN}",
    ),
    (re.compile(rf"(?i)((?<![a-z])(?:{_NAMES}){_GAP}[:=]{_GAP})(?![\s'\"\[])[^\s'\",;&]++"), rf"\1{HIDDEN}"),
    (
        re.compile(r"(?i)\b((?:bearer|basic|digest|negotiate)\s{1,40})(?=[^\s'\",;0-9=._-]*+[0-9=._-])[^\s'\",;]++"),
        rf"\1{HIDDEN}",
    ),
    # Tokens that show by their looks: HuggingFace's, the router's and its nodes', JSON web tokens and parts of them.
    (re.compile(r"\b(?!hf_endpoint\b)(?:hf|nt|sk|api_org|hf_oauth|hf_jwt)_[A-Za-z0-9_-]{6,}+"), HIDDEN),
    (re.compile(r"(?<![A-Za-z0-9])eyJ[A-Za-z0-9_-]{8,}+(?:\.[A-Za-z0-9_-]*+){0,4}"), HIDDEN),
    # Signed URLs: who has the query has the file. And who is named before the host has a password.
    (re.compile(rf"(?i)((?<![a-z])(?:{_SIGNED})=)(?!\[)[^&\s'\"<>]++"), rf"\1{HIDDEN}"),
    # A port is no password; a password may hold a slash.
    (
        re.compile(r"(://)(?![^/\s:@]{0,256}:[0-9]{1,5}(?:[/?#]|\Z))[^/\s'\"<>:@]{0,256}:[^\s'\"<>]{0,512}@"),
        rf"\1{HIDDEN}@",
    ),
    (re.compile(r"(://)[^/\s'\"<>?#]+@"), rf"\1{HIDDEN}@"),
    (re.compile(r"(?<![\w/:@.%+-])([\w.%+-]{1,64}:)(?!//)[^\s'\"<>/@]{1,256}@(?=[\w\[])"), rf"\1{HIDDEN}@"),
)
_URL = re.compile(r"(https?://[^\s?'\"<>]*+)(?:\?([^\s'\"<>#]++))?+")
_VALUE = re.compile(rf"(?i)(^|&)(?!(?:{_HARMLESS})=)([^=&]*+)=([^&]++)")


def redact(text: str, secrets: Iterable[str] = ()) -> str:
    """Hide tokens, keys, passwords and signatures in a text.

    Args:
        secrets: Strings to hide wherever they stand; shorter ones than six characters would hide half the text and are
            left to the patterns.
    """
    for secret in secrets:
        if len(secret) >= _SHORTEST:
            text = text.replace(secret, HIDDEN)
    for pattern, instead in PATTERNS:
        text = pattern.sub(instead, text)
    return _URL.sub(_without_values, text)


def _without_values(url: re.Match[str]) -> str:
    where, query = url.groups()
    if query is None:
        return str(where)
    # A query without a name for its value is all value.
    shown = _VALUE.sub(rf"\1\2={HIDDEN}", query) if "=" in query else HIDDEN
    return f"{where}?{shown}"


def known_secrets() -> list[str]:
    """The secrets that this process was started with."""
    names = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "MODELHUB_API_KEY")
    return [value for name in names if (value := os.environ.get(name, ""))]
