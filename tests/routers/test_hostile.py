"""The hostile servers do what they are said to do: else the tests against them would prove nothing."""

from __future__ import annotations

import json

import httpx
import pytest

from tests.routers import dying, hanging, huge, login_proxy, lying, ollama, web_page


def _get(url: str, path: str = "/v0/models") -> httpx.Response:
    return httpx.get(url + path, trust_env=False, timeout=10)


def test_a_web_page_is_the_same_everywhere() -> None:
    with web_page() as server:
        answers = [_get(server.url, path) for path in ("/", "/v0/models", "/api/auth/me")]
    assert {each.status_code for each in answers} == {200}
    assert all(each.text.startswith("<!DOCTYPE html>") for each in answers)


def test_ollama_answers_like_a_newest_router_at_first() -> None:
    with ollama() as server:
        assert _get(server.url, "/").text == "Ollama is running"
        assert set(_get(server.url, "/api/version").json()) == {"version"}
        assert _get(server.url, "/api/auth/me").status_code == 404


def test_a_login_proxy_sends_everybody_to_its_page() -> None:
    with login_proxy() as server:
        answer = _get(server.url)
        assert answer.status_code == 302
        page = _get(server.url, answer.headers["Location"])
    assert page.status_code == 200 and "<form" in page.text


def test_a_hanging_server_reads_and_stays_silent() -> None:
    with hanging() as server:
        with pytest.raises(httpx.ReadTimeout):
            httpx.get(server.url, trust_env=False, timeout=0.2)
        assert len(server.requests) == 1


@pytest.mark.parametrize("declared", [True, False])
def test_a_huge_answer_has_its_size(declared: bool) -> None:
    with huge(3_000_000, declared=declared) as server:
        answer = _get(server.url)
    assert len(answer.content) == 3_000_000 and ("content-length" in answer.headers) == declared


def test_a_dying_server_breaks_off() -> None:
    with dying() as server, pytest.raises(httpx.RemoteProtocolError):
        _get(server.url)


@pytest.mark.parametrize(
    ("generation", "there"), [("G2", "/v0/nodes"), ("G3", "/v0/endpoints"), ("G4", "/api/endpoints")]
)
def test_a_liar_knows_the_paths_of_its_generation(generation: str, there: str) -> None:
    with lying(generation) as server:
        told = json.loads(_get(server.url, there).text)
        assert _get(server.url, "/playground").status_code == 404
    assert None in (told if isinstance(told, list) else told["endpoints"])
