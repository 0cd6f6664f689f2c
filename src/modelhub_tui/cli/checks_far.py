"""What `modelhub doctor` looks at beyond its own files: service, router, hub, token and model cache."""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from modelhub_tui import hf_env, tls
from modelhub_tui.cli.checks import OK, PROBLEM, WARNING, Check
from modelhub_tui.config import Settings, hf_paths
from modelhub_tui.domain import NodeStatus, Phase, Transfer
from modelhub_tui.errors import BadSettings, NoWay
from modelhub_tui.proxies import proxy_for
from modelhub_tui.small_files import read_small
from modelhub_tui.units import human_size
from modelhub_tui.untrusted import clean

if TYPE_CHECKING:
    import httpx

HUB_S = 3.0
"""Longest wait for the hub, in seconds."""
SCAN_S = 4.0
"""The model cache is looked at for this long; then its figures are lower bounds."""
_YOUNG_S = 15.0
"""A service that has run no longer than this may still wait for its node."""


def service(settings: Settings) -> Check:
    """This machine's service: whether it runs, answers, and has its node; or the router that is used instead."""
    if not settings.embedded:
        return _router(settings)
    from modelhub_tui.service import unit
    from modelhub_tui.service.lifecycle import find_service, silent_holder
    from modelhub_tui.service.statefile import STATE_FILE

    details: dict[str, Any] = {"unit_installed": unit.unit_path().is_file()}
    begun = time.monotonic()
    found = find_service(settings)
    details["answer_ms"] = round((time.monotonic() - begun) * 1000, 1)
    if found is None:
        holder = silent_holder(settings)
        if holder is not None:
            what = f"Process {holder} holds {settings.state_dir}, but does not answer."
            return Check("service", PROBLEM, what, "Stop it with `modelhub stop`; downloads resume.", details)
        return Check("service", OK, "It does not run; it starts when something needs it.", "", details)
    with contextlib.suppress(OSError):
        details["uptime_s"] = round(max(0.0, time.time() - (settings.state_dir / STATE_FILE).stat().st_mtime))
    details |= {"pid": found.pid, "version": found.version, "url": found.url, "notices": list(found.notices)}
    return _fleet(found.folder, details, found.notices)


def _fleet(folder: Path, details: dict[str, Any], notices: tuple[str, ...]) -> Check:
    """What the service that runs says of nodes and transfers."""
    from modelhub_tui.client import quick

    try:
        report = quick.report(folder)
    except quick.NotSimpleError:
        todo = "Stop it with `modelhub stop`; downloads resume."
        return Check("service", PROBLEM, "The service runs, but does not list its models.", todo, details)
    failed = [each.name for each in report.models if any(transfer.phase is Phase.FAILED for transfer in each.transfers)]
    details |= {
        "nodes": [{"name": each.name, "status": str(each.status)} for each in report.nodes],
        "models": len(report.models),
        "transfers": sum(len(each.transfers) for each in report.models),
        "failed": failed,
        "why": {each.name: told for each in report.models if (told := _trouble(each.transfers))},
    }
    what = f"Version {details['version']}, process {details['pid']}, answers in {details['answer_ms']} ms"
    if not any(each.status is NodeStatus.ONLINE for each in report.nodes):
        young = details.get("uptime_s", _YOUNG_S) < _YOUNG_S
        todo = "Wait a moment." if young else "See the node's log below."
        return Check("service", WARNING if young else PROBLEM, f"{what}, but no node is online.", todo, details)
    if notices:
        return Check("service", WARNING, notices[0], "", details)
    if failed:
        todo = "`modelhub list --status failed` says why; `modelhub pull` tries again."
        return Check("service", WARNING, f"{what}; {len(failed)} downloads have failed.", todo, details)
    return Check("service", OK, f"{what}.", "", details)


def _trouble(transfers: tuple[Transfer, ...]) -> str:
    return next((each.error for each in transfers if each.error), "")


def _router(settings: Settings) -> Check:
    """Whether the router that the settings name answers."""
    assert settings.router is not None
    answer, told = _ask("GET", f"{settings.router}/health")
    details = {"url": settings.router, **told}
    if answer is None:
        return Check("service", PROBLEM, f"The router {settings.router}: {told['error']}", told["todo"], details)
    if answer.status_code >= 500:
        what = f"The router {settings.router} answers with {answer.status_code}."
        return Check("service", PROBLEM, what, "Look at its log.", details)
    return Check("service", OK, f"The router {settings.router} answers in {told['ms']} ms.", "", details)


def hub(settings: Settings) -> Check:
    """Whether the hub answers, and may be asked at all; if not, at which step that fails."""
    wish = next((name for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE") if os.environ.get(name)), "")
    if os.environ.get(wish, "").upper() in ("1", "ON", "YES", "TRUE"):  # as huggingface_hub reads them
        what = f"{wish} is set: a service started like this asks the hub for nothing, so nothing is downloaded."
        details = {"url": settings.hf_endpoint, "offline": wish}
        return Check("hub", PROBLEM, what, f"Unset {wish}, then restart the service (`modelhub stop`).", details)
    answer, told = _ask("HEAD", settings.hf_endpoint)
    details = {"url": settings.hf_endpoint, **told}
    if answer is None:
        return Check("hub", PROBLEM, f"{settings.hf_endpoint}: {told['error']}", told["todo"], details)
    status = answer.status_code
    if status == 407:
        what, todo = "The proxy wants a login.", "Put user and password into HTTPS_PROXY."
    elif status in (401, 403):
        what, todo = f"The hub refuses us ({status}).", "Check the token, and HF_ENDPOINT."
    elif status == 429:
        what, todo = "The hub asks us to slow down (429).", "Wait a few minutes; a token raises the limit."
    elif status >= 500:
        what, todo = f"The hub has a fault of its own ({status}).", "Try again later; downloads do so by themselves."
    else:
        return Check("hub", OK, f"{settings.hf_endpoint} answers in {told['ms']} ms.", "", details)
    return Check("hub", WARNING if status in (429, 500, 502, 503, 504) else PROBLEM, what, todo, details)


def token(settings: Settings) -> Check:
    """Whether there is a HuggingFace token, and whether the hub takes it. It is shown to nobody else."""
    said, source = _token()
    trouble = hf_env.token_trouble(os.environ)
    if trouble:
        return Check("token", PROBLEM, trouble, "", {"set": False})
    if not said:
        what = "None; gated and private repos need one."
        return Check("token", OK, what, "", {"set": False})
    details: dict[str, Any] = {"set": True, "from": source, "valid": None}
    if not (said.isascii() and said.isprintable()):
        todo = "Copy it again, or run `hf auth login`."
        return Check("token", PROBLEM, f"The token of {source} has characters that no token has.", todo, details)
    answer, _ = _ask("GET", f"{settings.hf_endpoint}/api/whoami-v2", {"Authorization": f"Bearer {said}"})
    status = answer.status_code if answer is not None else None
    details["valid"] = {200: True, 401: False}.get(status or 0)
    if details["valid"] is False:
        todo = "Make a new one on the hub, then `hf auth login`, or set HF_TOKEN."
        return Check("token", PROBLEM, f"The hub does not take the token of {source}.", todo, details)
    if details["valid"] is None:
        return Check("token", OK, f"Set by {source}; the hub does not say whether it is valid.", "", details)
    return Check("token", OK, f"Set by {source}, and valid.", "", details)


def _token() -> tuple[str, str]:
    """The token and where it is from, found as `huggingface_hub` does; importing that takes too long here."""
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        if os.environ.get(name, "").strip():
            return os.environ[name].strip(), name
    with contextlib.suppress(BadSettings, OSError, UnicodeDecodeError):
        path = hf_paths(os.environ)["HF_TOKEN_PATH"]
        return read_small(path, 10_000, follow_links=True).decode().strip(), "the token file"
    return "", ""


def _ask(method: str, url: str, headers: dict[str, str] | None = None) -> tuple[httpx.Response | None, dict[str, Any]]:
    """One request, within `HUB_S`; the answer, and how long it took or what is wrong: `ms`, or `error` and `todo`."""
    from modelhub_tui.net import new_sync_client, spare_httpx_its_command

    spare_httpx_its_command()
    import httpx

    begun = time.monotonic()
    try:
        with new_sync_client(url, timeout_s=HUB_S) as client, client.stream(method, url, headers=headers) as answer:
            ms = round((time.monotonic() - begun) * 1000, 1)
            return answer, {"ms": ms, "status": answer.status_code, "proxy": _proxied(url)}
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, OSError) as error:
        what, todo = _why(error, url)
        return None, {"error": what, "todo": todo, "proxy": _proxied(url), "kind": type(error).__name__}


def _proxied(url: str) -> bool:
    try:
        return proxy_for(url) is not None
    except NoWay:
        return True


def _why(error: BaseException, url: str) -> tuple[str, str]:
    """At which step a request failed: what to say, and what to do."""
    import httpx

    chain: list[BaseException] = []
    at: BaseException | None = error
    while at is not None and len(chain) < 10:
        chain.append(at)
        at = at.__cause__ or at.__context__
    host = urlsplit(url).hostname or url
    no_way = error if isinstance(error, NoWay) else tls.refusal(error, host)
    if no_way is not None:
        if isinstance(no_way, tls.CertificateRefused):
            return no_way.reason, "Behind a proxy that opens TLS it is the proxy's; ask who runs it for the CA."
        return no_way.reason, "Correct that, or unset it."
    if isinstance(error, httpx.ProxyError):
        return "the proxy does not let us through.", "Check HTTPS_PROXY and NO_PROXY."
    if any(isinstance(each, socket.gaierror) for each in chain):
        whose = "the proxy or " if _proxied(url) else ""
        return f"the name of {whose}{host} is not found (DNS).", "Check the network, and HF_ENDPOINT."
    bad = next((each for each in chain if isinstance(each, ssl.SSLError)), None)
    if bad is not None:
        reason = clean(getattr(bad, "reason", "") or "handshake failed", 100)
        return f"TLS fails ({reason}).", "Check HF_ENDPOINT, and HTTPS_PROXY."
    if isinstance(error, httpx.TimeoutException):
        todo = "Check the network; behind a firewall, set HTTPS_PROXY."
        return f"no answer within {HUB_S:.0f} s.", todo
    if isinstance(error, httpx.ConnectError):
        whose = "The proxy" if _proxied(url) else "Nobody"
        what = "does not answer at its address" if _proxied(url) else "answers there"
        return f"{whose.lower()} {what}.", "Check the network, HTTPS_PROXY and HF_ENDPOINT."
    return f"it does not answer as a web server does ({type(error).__name__}).", "Check HF_ENDPOINT and HTTPS_PROXY."


def cache(settings: Settings) -> Check:
    """What lies in the model cache: repos, unfinished files, deleted ones that can be had back, broken links."""
    found = dict.fromkeys(("repos", "files", "bytes", "parts", "part_bytes", "trashed", "trashed_bytes", "broken"), 0)
    examples: list[str] = []
    deadline = time.monotonic() + SCAN_S
    whole = True
    try:
        repos = [each for each in os.scandir(settings.hub_cache) if each.name.startswith("models--") and each.is_dir()]
    except FileNotFoundError:
        return Check("cache", OK, "There is none yet.", "", {"path": str(settings.hub_cache)})
    except OSError as error:
        todo = "Check its owner and mode, or choose another with HF_HUB_CACHE."
        return Check("cache", PROBLEM, f"{settings.hub_cache}: {error.strerror}.", todo)
    for repo in repos:
        if time.monotonic() > deadline:
            whole = False
            break
        found["repos"] += 1
        _count_blobs(Path(repo.path, "blobs"), found)
        for folder, _, names in os.walk(Path(repo.path, "snapshots")):
            for name in names:
                path = Path(folder, name)
                if path.is_symlink() and not path.exists():
                    found["broken"] += 1
                    examples.append(clean(path.relative_to(settings.hub_cache), 200))
    details = {"path": str(settings.hub_cache), **found, "complete": whole, "broken_examples": examples[:5]}
    what = f"{found['repos']} repos, {human_size(found['bytes'])}"
    for name, words in (("parts", "unfinished"), ("trashed", "in the trash")):
        if found[name]:
            size = human_size(found[f"{'part' if name == 'parts' else name}_bytes"])
            what += f"; {found[name]} files {words} ({size})"
    if found["broken"]:
        todo = "`modelhub pull` fetches what is missing."
        return Check("cache", WARNING, f"{what}; {found['broken']} links lead nowhere.", todo, details)
    return Check("cache", OK, f"{what}{'' if whole else ', and more'}.", "", details)


def _count_blobs(folder: Path, found: dict[str, int]) -> None:
    from modelhub_tui.service.node.cache import PART_SUFFIX, TRASH_SUFFIX

    with contextlib.suppress(OSError):
        for each in os.scandir(folder):
            with contextlib.suppress(OSError):
                # What takes the space, not the length: an unfinished file may be mostly holes.
                size = each.stat(follow_symlinks=False).st_blocks * 512
                if each.name.endswith((PART_SUFFIX, ".incomplete")):
                    found["parts"] += 1
                    found["part_bytes"] += size
                elif each.name.endswith(TRASH_SUFFIX):
                    found["trashed"] += 1
                    found["trashed_bytes"] += size
                else:
                    found["files"] += 1
                    found["bytes"] += size
