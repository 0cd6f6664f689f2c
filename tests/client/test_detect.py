"""Which router answers: the recipe, and one sentence for each server that is none."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from modelhub_tui.client.auth import Credentials
from modelhub_tui.client.detect import open_router
from modelhub_tui.errors import NotARouter, RouterFault, explain
from tests.client.payloads import HEALTH

URL = "http://router:32768"
DENIED = httpx.Response(401, text="Missing X-API-Key header or Authorization header")
PAGE = {"Content-Type": "text/html"}
Answers = dict[str, httpx.Response]


async def info(answers: Answers, seen: list[httpx.Request] | None = None) -> Any:
    """What is found where these paths are answered, and all others are 404."""

    def answer(request: httpx.Request) -> httpx.Response:
        if seen is not None:
            seen.append(request)
        return answers.get(request.url.path) or answers.get("*") or httpx.Response(404)

    client = await open_router(URL, Credentials("sk_secret"), transport=httpx.MockTransport(answer))
    try:
        return await client.info()
    finally:
        await client.aclose()


@pytest.mark.parametrize(
    ("answers", "generation", "label"),
    [
        ({"/v0/nodes": DENIED, "/v0/models": DENIED}, "G1", "llm-router (nodes)"),
        ({"/v0/nodes": httpx.Response(200, json=[])}, "G1", "llm-router (nodes)"),
        ({"/v0/endpoints": DENIED}, "G3", "llmlb (endpoints)"),
        ({"/v0/endpoints": httpx.Response(200, json={"endpoints": [], "total": 0})}, "G3", "llmlb (endpoints)"),
        ({"/api/auth/me": DENIED, "/api/version": httpx.Response(200, json={"version": "5.7.1"})}, "G4", "llmlb 5.7.1"),
        ({"/health": httpx.Response(200, json=HEALTH)}, "local", "modelhub 0.1.0 at router:32768"),
    ],
)
async def test_each_generation_is_recognised(answers: Answers, generation: str, label: str) -> None:
    told = await info(answers)
    assert (told.generation, told.label, told.url) == (generation, label, URL)


async def test_nobody_is_shown_a_credential_before_it_is_known_who_answers() -> None:
    seen: list[httpx.Request] = []
    await info({"/v0/nodes": DENIED}, seen)
    assert seen and not any("authorization" in each.headers or "x-api-key" in each.headers for each in seen)


@pytest.mark.parametrize(
    ("answers", "word"),
    [
        ({"/": httpx.Response(200, text="Ollama is running"), "/api/version": httpx.Response(200, json={})}, "Ollama"),
        ({"/api/system": httpx.Response(200, json={"xllm_version": "1"})}, "xLLM"),
        ({"*": httpx.Response(200, text="<!DOCTYPE html><h1>Hello</h1>", headers=PAGE)}, "a web page"),
        ({"/": httpx.Response(200, text="<html>Hello</html>", headers=PAGE)}, "a web page"),
        ({"*": httpx.Response(200, text="<html><input type='password'></html>", headers=PAGE)}, "login page"),
        ({"*": httpx.Response(401, text="<html>401 Authorization Required</html>", headers=PAGE)}, "login page"),
        ({"*": httpx.Response(302, headers={"Location": "https://sso.example/login"})}, "sso.example"),
        ({"/api/auth/me": DENIED}, "older than 4.7.1"),
        ({"/api/auth/me": httpx.Response(500, text="Internal API token not configured")}, "older than 4.7.1"),
        ({}, "some other server"),
    ],
)
async def test_what_is_no_router_is_called_by_its_name(answers: Answers, word: str) -> None:
    with pytest.raises(NotARouter) as found:
        await info(answers)
    assert word in explain(found.value).what


async def test_a_router_that_fails_is_not_taken_for_something_else() -> None:
    with pytest.raises(RouterFault):
        await info({"*": httpx.Response(503, text="starting")})
