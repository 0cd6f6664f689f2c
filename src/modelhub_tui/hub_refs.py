"""Turn what a person types or pastes into a HuggingFace repo, revision and file."""

from __future__ import annotations

from urllib.parse import unquote, urlsplit

from modelhub_tui import identifiers
from modelhub_tui.errors import BadReference
from modelhub_tui.identifiers import BadIdentifier, safe_repo_path
from modelhub_tui.untrusted import clean, clean_url
from modelhub_tui.values import dataclass

HUB_HOSTS = frozenset({"huggingface.co", "www.huggingface.co", "hf.co", "www.hf.co"})

_FILE_VIEWS = frozenset({"resolve", "blob", "raw"})
_OTHER_KINDS = frozenset({"datasets", "spaces", "collections", "papers", "docs", "api", "models"})


@dataclass(frozen=True, slots=True)
class HubRef:
    """A place on the hub."""

    repo: str
    """`owner/name`"""
    revision: str | None = None
    file: str | None = None


def check_revision(text: str) -> str:
    """Return `text` if it can name a branch, tag or commit; as `identifiers.revision`, for what a person typed.

    Raises:
        BadReference: It cannot.
    """
    try:
        return identifiers.revision(text)
    except BadIdentifier as error:
        raise BadReference(f"{error}.") from error


def parse_hub_ref(text: str, endpoint: str = "https://huggingface.co") -> HubRef:
    """Read `owner/name`, `owner/name:file.gguf`, or any hub URL, with or without scheme, query and fragment.

    Args:
        text: What was typed.
        endpoint: The configured hub; its host is accepted beside HuggingFace's own.

    Raises:
        BadReference: With a sentence that says what to type instead.
    """
    said = text.strip().strip("<>\"'")
    if not said or clean(said, 2000) != said or " " in said:
        raise BadReference("Type a repo as owner/name, or paste its HuggingFace URL.")
    rest, file = said, None
    # hf://owner/name@revision/file: how huggingface_hub's file system names files.
    is_hf_path = said.lower().startswith("hf://")
    hosts = HUB_HOSTS | {urlsplit(endpoint).netloc.lower()}
    if "://" in said or said.split("/", 1)[0].lower() in hosts:
        try:
            url = urlsplit(said if "://" in said else f"https://{said}")
        except ValueError as error:
            raise BadReference(f"{clean_url(said)} is no valid URL; type the repo as owner/name.") from error
        if url.scheme.lower() not in ("http", "https", "hf"):
            scheme = clean(url.scheme, 20)
            raise BadReference(f"{scheme}:// is not a HuggingFace address; paste an https:// URL or owner/name.")
        if is_hf_path:
            rest = f"{url.netloc}{url.path}"
        elif url.username or url.password:
            raise BadReference("Leave user name and password out of the URL; set HF_TOKEN instead.")
        elif url.netloc.lower() not in hosts:
            hub, said_host = urlsplit(endpoint).netloc, clean_url(f"{url.scheme}://{url.netloc}").partition("://")[2]
            raise BadReference(
                f"{said_host or 'No host'} is not the configured hub ({hub}); set HF_ENDPOINT to use it."
            )
        else:
            rest = url.path
    elif ":" in said:
        rest, file = said.split(":", 1)
    parts = [unquote(part) for part in rest.strip("/").split("/") if part]
    if parts and parts[0].lower() in _OTHER_KINDS:
        if parts[0].lower() == "models" and len(parts) >= 3:
            parts = parts[1:]
        else:
            raise BadReference(f"That is a HuggingFace {clean(parts[0], 20)} page; give a model repo as owner/name.")
    if len(parts) < 2:
        raise BadReference(f"{clean_url(said)} has no owner; type the repo as owner/name.")
    at = ""
    if len(parts) == 2 and ":" in parts[1]:  # hf.co/owner/name:file, as other tools write it
        parts[1], file = parts[1].split(":", 1)
    elif is_hf_path:
        parts[1], _, at = parts[1].partition("@")
    try:
        repo = identifiers.repo_id("/".join(parts[:2]))
    except BadIdentifier as error:
        raise BadReference(f"{clean('/'.join(parts[:2]), 80)} is not a repo name; it looks like owner/name.") from error
    revision, path = check_revision(at) if at else None, None
    if is_hf_path:
        path = "/".join(parts[2:]) or None
    elif len(parts) > 2:
        if parts[2] in _FILE_VIEWS | {"tree"} and len(parts) > 3:
            # A branch may contain slashes only when quoted (refs%2Fpr%2F1), which `unquote` above has joined.
            revision, path = check_revision(parts[3]), "/".join(parts[4:]) or None
            if parts[2] == "tree":
                path = None
        elif parts[2] not in {"tree", "discussions", "commits", "blob", "commit", "resolve", "raw"}:
            path = "/".join(parts[2:])
    path = file or path
    if path:
        try:
            path = safe_repo_path(path)
        except BadIdentifier as error:
            raise BadReference(f"The file name cannot be used ({error}).") from error
    return HubRef(repo, None if revision in (None, "main") else revision, path)
