"""Logging in, keeping sessions, and which credential a request carries."""

from __future__ import annotations

import base64
import json
import stat
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from modelhub_tui.client.auth import Access, Credentials, Session, Sessions, change_password, login, origin, usable
from modelhub_tui.client.transport import RouterHttp
from modelhub_tui.errors import BadSettings, LoginNeeded, NotARouter, NotSupported, RouterFault

URL = "http://router:32768"
USER = {"id": "6f96", "username": "admin", "role": "admin"}


def jwt(exp: float) -> str:
    """A token whose claim says when it ends."""
    claims = base64.urlsafe_b64encode(json.dumps({"exp": exp}).encode()).rstrip(b"=").decode()
    return f"eyJhbGciOiJIUzI1NiJ9.{claims}.c2ln"


async def test_each_generation_has_its_own_path_and_the_token_says_when_it_ends() -> None:
    for path in ("/v0/auth/login", "/api/auth/login"):
        bodies: list[Any] = []

        def answer(request: httpx.Request, path: str = path, bodies: list[Any] = bodies) -> httpx.Response:
            if request.url.path != path:
                return httpx.Response(404)
            bodies.append(json.loads(request.content))
            return httpx.Response(200, json={"token": jwt(5e9), "expires_in": 60, "user": USER})

        session = await login(URL, "admin", "pass", transport=httpx.MockTransport(answer))
        assert bodies == [{"username": "admin", "password": "pass"}]
        assert (session.expires_at, session.username, session.role) == (5e9, "admin", "admin")
        assert session.token not in repr(session)


@pytest.mark.parametrize(
    ("response", "error"),
    [
        (httpx.Response(401, text="Invalid username or password"), LoginNeeded),
        (httpx.Response(200, text="<html>"), NotARouter),
        (httpx.Response(200, json={"token": 7}), RouterFault),
        (httpx.Response(200, json={"token": "one two"}), RouterFault),
        (httpx.Response(200, text="nothing"), RouterFault),
        (httpx.Response(404), NotSupported),
    ],
)
async def test_a_login_that_fails_is_one_of_our_errors(response: httpx.Response, error: type[Exception]) -> None:
    with pytest.raises(error):
        await login(URL, "admin", "pass", transport=httpx.MockTransport(lambda _: response))


async def test_a_new_password_is_sent_with_the_token() -> None:
    seen: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200, json={})

    await change_password(URL, Session("a.b.c", 0.0), "longer", transport=httpx.MockTransport(answer))
    (request,) = seen
    assert (request.method, request.url.path) == ("PUT", "/api/auth/change-password")
    assert request.headers["Authorization"] == "Bearer a.b.c"
    assert json.loads(request.content) == {"new_password": "longer"}


def test_a_session_is_kept_by_origin_in_a_file_for_us_alone(tmp_path: Path) -> None:
    sessions = Sessions(tmp_path / "state", keyring=False)
    sessions.store(f"{URL}/base", Session("a.b.c", 12.0, "admin", "admin"))
    (path,) = (tmp_path / "state").iterdir()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert sessions.load(URL) == Session("a.b.c", 12.0, "admin", "admin")
    assert sessions.load("http://other:32768") is None
    path.chmod(0o644)
    assert sessions.load(URL) is None
    path.chmod(0o600)
    assert sessions.forget(URL) and not sessions.forget(URL)
    assert sessions.load(URL) is None


class Ring:
    """A keyring; `broken` ones raise whatever they like."""

    def __init__(self, *, broken: bool = False) -> None:
        self.kept: dict[tuple[str, str], str] = {}
        self.broken = broken

    def _check(self) -> None:
        if self.broken:
            raise RuntimeError("no secret service")

    def get_password(self, service: str, name: str) -> str | None:
        self._check()
        return self.kept.get((service, name))

    def set_password(self, service: str, name: str, value: str) -> None:
        self._check()
        self.kept[service, name] = value

    def delete_password(self, service: str, name: str) -> None:
        self._check()
        del self.kept[service, name]


def test_a_keyring_that_works_is_used_instead_of_the_file(tmp_path: Path) -> None:
    ring = Ring()
    sessions = Sessions(tmp_path, keyring=ring)
    sessions.store(URL, Session("a.b.c", 12.0))
    assert not list(tmp_path.iterdir()) and list(ring.kept) == [("modelhub", URL)]
    assert sessions.load(URL) == Session("a.b.c", 12.0)
    assert sessions.forget(URL) and not ring.kept


def test_a_keyring_that_fails_leaves_the_file(tmp_path: Path) -> None:
    sessions = Sessions(tmp_path, keyring=Ring(broken=True))
    sessions.store(URL, Session("a.b.c", 12.0))
    assert sessions.load(URL) == Session("a.b.c", 12.0)
    assert sessions.forget(URL) and sessions.load(URL) is None


def test_origins_and_expiry() -> None:
    assert origin("https://Router/x") == "https://router:443"
    assert origin("http://[::1]:80/") == "http://[::1]:80"
    session = Session("a.b.c", 10.0)
    assert usable(session, 9.0) is session and usable(session, 10.0) is None and usable(None, 0.0) is None


async def access(credentials: Credentials, opens: dict[str, str], seen: list[tuple[str, str]]) -> Access:
    """Requests to a router where each path is opened by one credential."""

    def answer(request: httpx.Request) -> httpx.Response:
        shown = request.headers.get("Authorization", "").removeprefix("Bearer ")
        seen.append((request.url.path, shown))
        assert "x-api-key" not in request.headers and "cookie" not in request.headers
        return httpx.Response(200 if opens[request.url.path] == shown else 403, headers={"Set-Cookie": "llmlb_jwt=x"})

    return Access(RouterHttp(URL, None, transport=httpx.MockTransport(answer)), credentials)


async def test_the_key_goes_first_the_token_where_it_must_and_what_opened_is_remembered() -> None:
    seen: list[tuple[str, str]] = []
    both = await access(Credentials("sk_1", "a.b.c"), {"/v0/models": "sk_1", "/v0/nodes": "a.b.c"}, seen)
    for _ in range(2):
        assert (await both.request("GET", "/v0/models")).ok
        assert (await both.request("GET", "/v0/nodes")).ok
    nodes = [shown for path, shown in seen if path == "/v0/nodes"]
    assert nodes == ["sk_1", "a.b.c", "a.b.c"]
    assert {shown for path, shown in seen if path == "/v0/models"} == {"sk_1"}


async def test_a_token_is_not_shown_where_only_keys_open() -> None:
    seen: list[tuple[str, str]] = []
    only = await access(Credentials(None, "a.b.c"), {"/v1/models": "sk_1"}, seen)
    assert not (await only.request("GET", "/v1/models", key_only=True)).ok
    assert seen == [("/v1/models", "")]


def test_credentials_hide_themselves_and_must_fit_a_header() -> None:
    shown = repr(Credentials("sk_secret", "a.secret.c"))
    assert "secret" not in shown
    with pytest.raises(BadSettings):
        Access(RouterHttp(URL, None, transport=httpx.MockTransport(lambda _: httpx.Response(200))), Credentials("ä"))


@pytest.mark.parametrize(
    "claims",
    ["[" * 6000, '{"exp":' * 1500, '{"exp": ' + "9" * 6000 + "}", '{"exp": 1e999}', '{"exp": NaN}', "[]", "7", ""],
)
async def test_a_login_whose_token_makes_no_sense_is_good_for_as_long_as_is_said(claims: str) -> None:
    token = f"eyJ.{base64.urlsafe_b64encode(claims.encode()).rstrip(b'=').decode()}.c2ln"
    answer = httpx.MockTransport(lambda _: httpx.Response(200, json={"token": token, "expires_in": 60}))
    begun = time.time()
    session = await login(URL, "admin", "pass", transport=answer)
    assert begun + 59 < session.expires_at < time.time() + 61


@pytest.mark.parametrize("ends", ["1" + "0" * 400, "1e999", "true", '"x"', "[" * 100_000])
def test_a_kept_login_that_makes_no_sense_is_none(tmp_path: Path, ends: str) -> None:
    (tmp_path / "sessions.json").touch(mode=0o600)
    (tmp_path / "sessions.json").write_text(f'{{"{origin(URL)}": {{"token": "t", "expires_at": {ends}}}}}')
    assert Sessions(tmp_path, keyring=False).load(URL) is None


def test_an_origin_has_one_form() -> None:
    one = {origin(each) for each in ("http://h", "HTTP://H:80/", "http://h./x?y", "http://h:080")}
    assert one == {"http://h:80"}
    assert origin("https://[0:0::1]") == origin("https://[::1]:443") == "https://[::1]:443"
    others = ("https://h", "http://h:8080", "http://h.x", "http://hh")
    assert len({origin(each) for each in others} | one) == 5
