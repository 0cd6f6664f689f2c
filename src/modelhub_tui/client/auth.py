"""Who we are to a router: an API key, or the token of somebody who has logged in, kept by router and never shown."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import time
from dataclasses import asdict, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard

from modelhub_tui import net
from modelhub_tui.client.problems import to_error
from modelhub_tui.client.transport import Answer, RouterHttp
from modelhub_tui.errors import (
    BadSettings,
    LoginNeeded,
    ModelHubError,
    NotARouter,
    NotSupported,
    RouterFault,
    Unauthorised,
)
from modelhub_tui.identifiers import origin
from modelhub_tui.own_folder import read_private, write_private
from modelhub_tui.untrusted import clean
from modelhub_tui.values import dataclass

if TYPE_CHECKING:
    import httpx

log = logging.getLogger(__name__)

LOGIN_PATHS = ("/v0/auth/login", "/api/auth/login")
TOKEN_S = 86_400
"""How long tokens are good for, unless one says otherwise."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a client may show a router; one of them in each request, never both."""

    api_key: str | None = field(default=None, repr=False)
    token: str | None = field(default=None, repr=False)
    """A JWT. It opens neither `/v1` nor manifests."""

    def __bool__(self) -> bool:
        return bool(self.api_key or self.token)


@dataclass(frozen=True, slots=True)
class Session:
    """Somebody who has logged in."""

    token: str = field(repr=False)
    expires_at: float
    """Seconds since the epoch."""
    username: str = ""
    role: str = ""
    must_change_password: bool = False


async def login(
    url: str, username: str, password: str, *, transport: httpx.AsyncBaseTransport | None = None
) -> Session:
    """Log in with a user name and a password.

    Raises:
        Unauthorised: They are wrong.
        NotSupported: This router has no users.
        ModelHubError: The router cannot be reached, or is none.
    """
    http = await asyncio.to_thread(RouterHttp, url, None, transport=transport)
    try:
        for path in LOGIN_PATHS:
            answer = await http.request("POST", path, body={"username": username, "password": password})
            if answer.status not in (404, 405):
                return _session(url, answer, username)
    finally:
        await http.aclose()
    raise NotSupported("log anybody in; give it an API key")


async def change_password(
    url: str, session: Session, password: str, *, transport: httpx.AsyncBaseTransport | None = None
) -> None:
    """Set a new password, as `must_change_password` demands (G4); log in again afterwards.

    Raises:
        Rejected: It is too short.
        ModelHubError: As for `login()`.
    """
    http = await asyncio.to_thread(RouterHttp, url, session.token, transport=transport)
    try:
        answer = await http.request("PUT", "/api/auth/change-password", body={"new_password": password})
    finally:
        await http.aclose()
    if not answer.ok:
        raise to_error(answer.status, answer.headers, answer.body, action="change passwords")


async def logout(url: str, session: Session, *, transport: httpx.AsyncBaseTransport | None = None) -> None:
    """Tell the router that somebody leaves. It only takes note: the token has to be forgotten here."""
    http = await asyncio.to_thread(RouterHttp, url, session.token, transport=transport)
    try:
        for path in ("/v0/auth/logout", "/api/auth/logout"):
            if (await http.request("POST", path)).status not in (404, 405):
                return
    finally:
        await http.aclose()


def _session(url: str, answer: Answer, username: str) -> Session:
    if answer.status in (401, 403):
        raise LoginNeeded(url, wrong=True)
    if not answer.ok:
        raise to_error(answer.status, answer.headers, answer.body)
    if answer.body.lstrip()[:1] == b"<":
        raise NotARouter(url, "a web page")
    try:
        told = net.loads(answer.body)
    except ValueError:
        told = None
    token = told.get("token") if isinstance(told, dict) else None
    if not (isinstance(token, str) and token and _fits_header(token) and len(token) <= 16_384):
        raise RouterFault("its answer to the login cannot be read.")
    user = told["user"] if isinstance(told.get("user"), dict) else {}
    lasts_s = told.get("expires_in")
    lasts_s = lasts_s if isinstance(lasts_s, int) and 0 < lasts_s < 10**9 else TOKEN_S
    return Session(
        token,
        _expiry(token) or time.time() + lasts_s,
        clean(user.get("username") if isinstance(user.get("username"), str) else username, 200),
        clean(user["role"], 40) if isinstance(user.get("role"), str) else "",
        user.get("must_change_password") is True,
    )


def _expiry(token: str) -> float | None:
    """When a JWT ends, by its own claim, in the router's time; None if it does not say."""
    try:
        part = token.split(".")[1]
        at = net.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))).get("exp")
    except (IndexError, ValueError, AttributeError):
        return None
    return float(at) if _is_time(at) else None


def _fits_header(credential: str) -> bool:
    """Whether it can follow `Bearer`."""
    return credential.isascii() and credential.isprintable() and " " not in credential


def _is_time(at: object) -> TypeGuard[float]:
    """Whether this is a time that a login may end: seconds since the epoch."""
    return isinstance(at, int | float) and not isinstance(at, bool) and 0 < at < 1e12


class Sessions:
    """Who is logged in where: in the system keyring where one works, else in a file that only we can read.

    Args:
        state_dir: Our state folder.
        keyring: Replaces the system's, in tests; False uses none.
    """

    SERVICE = "modelhub"

    def __init__(self, state_dir: Path, *, keyring: Any = None) -> None:
        self._path = state_dir / "sessions.json"
        self._ring = (_working_keyring() if keyring is None else keyring) or None

    def load(self, url: str) -> Session | None:
        """Return the session kept for a router, expired or not; None if there is none."""
        where = origin(url)
        said: Any = None
        if self._ring is not None:
            try:
                kept = self._ring.get_password(self.SERVICE, where)
                said = json.loads(kept) if kept else None
            except Exception as error:  # whatever a keyring's backend raises: it then does not work
                log.warning("the keyring does not answer: %s", type(error).__name__)
        return _restored(said if isinstance(said, dict) else self._read().get(where))

    def store(self, url: str, session: Session) -> None:
        """Keep a session.

        Raises:
            OSError: It cannot be written.
        """
        where = origin(url)
        if self._ring is not None:
            try:
                self._ring.set_password(self.SERVICE, where, json.dumps(asdict(session)))
            except Exception as error:  # as in load()
                log.warning("the keyring takes nothing: %s", type(error).__name__)
            else:
                self._drop(where)
                return
        write_private(self._path, {**self._read(), where: asdict(session)})

    def forget(self, url: str) -> bool:
        """Drop the session kept for a router; True if there was one."""
        where, there = origin(url), self.load(url) is not None
        if self._ring is not None:
            try:
                self._ring.delete_password(self.SERVICE, where)
            except Exception as error:  # as in load(); also raised where there is none
                log.debug("the keyring dropped nothing: %s", type(error).__name__)
        self._drop(where)
        return there

    def _drop(self, where: str) -> None:
        kept = self._read()
        if kept.pop(where, None) is not None:
            write_private(self._path, kept)

    def _read(self) -> dict[str, Any]:
        return read_private(self._path)


def _restored(said: Any) -> Session | None:
    if not isinstance(said, dict):
        return None
    token, ends = said.get("token"), said.get("expires_at")
    if not isinstance(token, str) or not token or not _is_time(ends):
        return None
    name, role = said.get("username"), said.get("role")
    return Session(
        token,
        float(ends),
        clean(name, 200) if isinstance(name, str) else "",
        clean(role, 40) if isinstance(role, str) else "",
        said.get("must_change_password") is True,
    )


def usable(session: Session | None, now: float) -> Session | None:
    """The session, if its token may still be good."""
    return session if session is not None and session.expires_at > now else None


def _working_keyring() -> Any:
    """The optional `keyring` package, if a backend is behind it."""
    try:
        import keyring
    except ImportError:
        return None
    try:
        return keyring if keyring.get_keyring().priority >= 1 else None
    except Exception as error:  # a broken backend is none
        log.debug("no keyring: %s", type(error).__name__)
        return None


class Access:
    """Requests to one router, each with the one credential that opens what it asks for.

    The key goes first, because it may open everything; where it does not, the token is tried, and remembered.
    """

    def __init__(self, http: RouterHttp, credentials: Credentials) -> None:
        for each in (credentials.api_key, credentials.token):
            if each is not None and not _fits_header(each):
                raise BadSettings("The API key has characters that no router accepts; copy it again.")
        self.http, self.credentials = http, credentials
        self._opens: dict[tuple[str, str], str] = {}

    async def request(self, method: str, path: str, *, key_only: bool = False, **more: Any) -> Answer:
        """Send one request; see `RouterHttp.request`.

        Args:
            key_only: No token opens this.
        """
        kind = (method, "/".join(path.split("/")[:3]))
        found = [self.credentials.api_key, None if key_only else self.credentials.token]
        tried = [each for each in found if each]
        tried.sort(key=lambda each: each != self._opens.get(kind))
        refused: Answer | None = None
        for each in tried or [""]:
            headers = {"Authorization": f"Bearer {each}"} if each else {}
            answer = await self.http.request(method, path, headers=headers, **more)
            if answer.status not in (401, 403):
                if each:
                    self._opens[kind] = each
                return answer
            refused = refused if refused is not None and refused.status == 403 else answer
        assert refused is not None
        return refused

    def error(self, answer: Answer, *, model: str = "", action: str = "") -> ModelHubError:
        """A refusal, as one of our errors; 401 says that somebody has to log in (again)."""
        error = to_error(answer.status, answer.headers, answer.body, model=model, action=action)
        if isinstance(error, Unauthorised):
            only_token = bool(self.credentials.token) and not self.credentials.api_key
            return LoginNeeded(self.http.url, expired=only_token)
        return error
