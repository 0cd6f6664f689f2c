"""The fakes against the text that describes the real routers: access, framework answers, models."""

from __future__ import annotations

import json
from urllib.parse import quote

import httpx
import pytest

from tests.routers import FakeG1, FakeG2, FakeG3
from tests.routers.asking import PHI, PHI_FILE, PHI_NAME, Asking
from tests.routers.models import ADMIN_PASSWORD

# -- telling them apart, and what unknown paths say


@pytest.mark.parametrize(
    ("path", "answers"),
    [
        ("/api/version", (404, 404, 200)),
        ("/api/system", (404, 404, 200)),
        ("/api/auth/me", (404, 404, 401)),
        ("/v0/nodes", (401, 404, 404)),
        ("/v0/endpoints", (404, 401, 404)),
        ("/v0/models", (401, 401, 404)),
        ("/playground", (200, 404, 404)),
    ],
)
def test_each_generation_answers_the_probes_in_its_way(ask: Asking, path: str, answers: tuple[int, ...]) -> None:
    found = ask("GET", path, None)
    assert found.status_code == answers[{"G1": 0, "G2": 0, "G3": 1, "G4": 2}[ask.router.generation]]
    if found.status_code == 404:
        assert found.content == b""
    if found.status_code == 401:
        assert found.headers["content-type"].startswith("text/plain")


def test_without_authentication_only_two_lists_stay_closed_on_nodes() -> None:
    for made in (FakeG1, FakeG2):
        with made(auth_disabled=True) as router:
            ask = Asking(router)
            assert [ask("GET", path, None).status_code for path in ("/v0/nodes", "/v1/models")] == [200, 200]
            assert [ask("GET", path, None).status_code for path in ("/v0/models", "/v0/models/hub")] == [401, 401]
            assert ask("GET", "/v0/auth/me", None).json()["user_id"] == "00000000-0000-0000-0000-000000000000"
    with FakeG3(auth_disabled=True) as router:
        ask = Asking(router)
        paths = ("/v0/endpoints", "/v0/models", "/v0/models/hub")
        assert [ask("GET", path, None).status_code for path in paths] == [200] * 3


# -- credentials


def test_node_generations_judge_credentials_by_the_table(nodes: Asking) -> None:
    router = nodes.router
    who = {
        "jwt admin": router.jwt(),
        "jwt viewer": router.jwt(router.viewer),
        "key admin": router.admin_key,
        "key node": router.node_key,
        "key api": router.api_key,
    }
    table = {
        ("GET", "/v0/auth/me"): (200, 200, 401, 401, 401),
        ("GET", "/v0/models"): (200, 403, 200, 200, 403),
        ("GET", "/v0/models/hub"): (200, 403, 200, 200, 403),
        ("DELETE", "/v0/models/x"): (400, 403, 400, 403, 403),
        ("GET", "/v0/models/registry/x/manifest.json"): (401, 401, 404, 404, 403),
        ("GET", "/v0/nodes"): (200, 403, 200, 403, 403),
        ("GET", "/v0/dashboard/overview"): (200, 403, 200, 403, 403),
        ("GET", "/v0/api-keys"): (200, 403, 200, 403, 403),
        ("GET", "/v1/models"): (401, 401, 200, 403, 200),
        ("GET", "/v1/models/x"): (401, 401, 404, 403, 404),
    }
    for (method, path), wanted in table.items():
        got = tuple(nodes(method, path, credential).status_code for credential in who.values())
        assert got == wanted, path
    token = router.add_node().token
    assert nodes("GET", "/v1/models", None, headers={"X-Node-Token": token}).status_code == 200
    wrong = nodes("GET", "/v1/models", "admin", headers={"X-Node-Token": "nt_wrong"})
    assert (wrong.status_code, wrong.text) == (401, "Invalid node token")
    assert nodes("GET", "/v0/models", None, headers={"X-Node-Token": token}).status_code == 401


def test_g3_and_g4_judge_credentials_by_their_tables(endpoints: Asking) -> None:
    router = endpoints.router
    prefix = router.prefix
    g3 = router.generation == "G3"
    lists_key = router.endpoint_key if g3 else router.registry_key
    who = (router.jwt(), router.jwt(router.viewer), router.admin_key, lists_key, router.api_key)
    table = {
        ("GET", f"{prefix}/models"): (200, 403, 200, 200, 403),
        ("DELETE", f"{prefix}/models/x"): (400, 403, 400, 403, 403),
        ("GET", f"{prefix}/models/registry/x/manifest.json"): (401, 401, 404, 404, 403),
        ("GET", f"{prefix}/endpoints"): (200, 200, 200, 403, 200 if g3 else 403),
        ("GET", f"{prefix}/dashboard/stats"): (200, 403, 200, 403, 403) if g3 else (200, 200, 401, 401, 401),
        ("GET", "/v1/models"): (401, 401, 200, 403, 200),
    }
    for (method, path), wanted in table.items():
        assert tuple(endpoints(method, path, each).status_code for each in who) == wanted, path
    endpoint = router.add_node("x", "vllm")
    refused = endpoints("POST", f"{prefix}/endpoints/{endpoint.id}/sync", router.jwt(router.viewer))
    assert refused.status_code == 403
    assert (refused.json()["code"] == "FORBIDDEN") if g3 else refused.text == "Admin access required"


def test_bad_credentials_have_their_own_sentences(ask: Asking) -> None:
    path = f"{ask.router.prefix}/models"
    expired = ask.router.auth.add_key("admin", "registry.read", expires_at=ask.router.clock() - 1)
    said = {
        ask("GET", path, None).text,
        ask("GET", path, None, headers={"Authorization": "bearer lower"}).text,
        ask("GET", path, "sk_wrong").text,
        ask("GET", path, expired).text,
        ask("GET", path, ask.router.jwt(for_s=-5)).text,
    }
    assert said == {
        "Missing X-API-Key header or Authorization header",
        "Invalid Authorization header format. Expected 'Bearer <token>'",
        "Invalid API key",
        "API key expired",
        "Invalid token: ExpiredSignature",
    }


def test_of_two_keys_x_api_key_wins_and_a_bad_jwt_is_final(ask: Asking) -> None:
    path, good = f"{ask.router.prefix}/models", ask.router.admin_key
    assert ask("GET", path, good, headers={"X-API-Key": "sk_wrong"}).status_code == 401
    assert ask("GET", path, "sk_wrong", headers={"X-API-Key": good}).status_code == 200
    token = ask.router.jwt()
    ask.router.expire_tokens()
    assert ask("GET", path, token, headers={"X-API-Key": good}).status_code == 401
    # On a route for keys only a JWT is nothing but a wrong key, and the other header still wins.
    assert ask("GET", "/v1/models", token, headers={"X-API-Key": good}).status_code == 200


def test_login_gives_a_token_and_only_g4_sets_cookies(ask: Asking) -> None:
    family = "/api" if ask.router.generation == "G4" else "/v0"
    good = {"username": "admin", "password": ADMIN_PASSWORD}
    answer = ask("POST", f"{family}/auth/login", None, json=good)
    told = answer.json()
    assert answer.status_code == 200 and told["expires_in"] == 86400 and told["user"]["role"] == "admin"
    assert ("must_change_password" in told["user"]) == ("set-cookie" in answer.headers) == (family == "/api")
    me = ask("GET", f"{family}/auth/me", told["token"]).json()
    assert (me["user_id"], me["username"]) == (ask.router.admin.id, "admin")
    refused = ask("POST", f"{family}/auth/login", None, json=good | {"password": "no"})
    body = refused.json()["error"] if family == "/api" else refused.text
    assert (refused.status_code, body) == (401, "Invalid username or password")
    assert ask("POST", f"{family}/auth/login", None, json={"username": "admin"}).status_code == 422


def test_keys_can_be_made_where_the_generation_makes_them(ask: Asking) -> None:
    token = ask.router.jwt()
    if ask.router.generation == "G4":
        made = ask("POST", "/api/me/api-keys", token, json={"name": "tui", "permissions": ["registry.read"]})
        assert ask("POST", "/api/me/api-keys", token, json={"name": "x", "scopes": ["admin"]}).status_code == 400
        viewer = ask("POST", "/api/me/api-keys", ask.router.jwt(ask.router.viewer), json={"name": "v"})
        assert viewer.json()["permissions"] == ["openai.inference", "openai.models.read"]
    else:
        made = ask("POST", "/v0/api-keys", token, json={"name": "tui", "scopes": ["admin"]})
        assert ask("POST", "/v0/api-keys", token, json={"name": "tui"}).status_code == 422
        assert ask("POST", "/v0/api-keys", token, json={"name": "tui", "scopes": []}).text == "Scopes are required"
        assert len(ask("GET", "/v0/api-keys", token).json()["api_keys"]) == 4
    assert made.status_code == 201
    assert ask.models("GET", credential=made.json()["key"]).status_code == 200


def test_g4_judges_cookies_before_keys_and_wants_csrf_for_writes(g4: Asking) -> None:
    stale = g4.router.jwt()
    g4.router.expire_tokens()
    with_stale = {"Cookie": f"llmlb_jwt={stale}"}
    assert g4.models("GET", headers=with_stale).status_code == 401
    fresh = f"llmlb_jwt={g4.router.jwt()}"
    assert g4.models("GET", credential=None, headers={"Cookie": fresh}).status_code == 200
    host = g4.router.url
    tries: list[tuple[dict[str, str], str]] = [
        ({"Cookie": fresh}, "Missing CSRF cookie"),
        ({"Cookie": f"{fresh}; llmlb_csrf=abc"}, "Missing CSRF header"),
        ({"Cookie": f"{fresh}; llmlb_csrf=abc", "X-CSRF-Token": "x"}, "Invalid CSRF token"),
        ({"Cookie": f"{fresh}; llmlb_csrf=abc", "X-CSRF-Token": "abc"}, "Origin validation failed"),
    ]
    for headers, words in tries:
        refused = g4.models("DELETE", "/x", None, headers=headers)
        assert (refused.status_code, refused.text) == (403, words)
    good = {**tries[-1][0], "Origin": host}
    assert g4.models("DELETE", "/x", None, headers=good).json() == {"error": "model not found"}


def test_g4_lets_who_must_change_the_password_see_some_lists_only(g4: Asking) -> None:
    user = g4.router.auth.add_user("new", "initial", must_change=True)
    token = g4.router.jwt(user)
    seen = {path: g4("GET", path, token).status_code for path in ("/api/endpoints", "/api/models", "/api/models/hub")}
    assert set(seen.values()) == {200}
    blocked = g4.models("POST", "/register", token, json={"repo": PHI})
    assert (blocked.status_code, blocked.json()) == (403, {"error": "password_change_required"})
    change = "/api/auth/change-password"
    assert g4("PUT", change, token, json={"new_password": "short"}).status_code == 400
    assert g4("PUT", change, token, json={"new_password": "long enough"}).is_success
    again = g4("POST", "/api/auth/login", None, json={"username": "new", "password": "long enough"}).json()
    assert not again["user"]["must_change_password"]
    found = g4.models("POST", "/register", again["token"], json={"repo": PHI, "filename": PHI_FILE})
    assert found.status_code == 201


# -- requests that cannot be read


def test_unreadable_bodies_are_answered_as_the_framework_does(ask: Asking) -> None:
    def send(content: bytes, kind: str | None = "application/json") -> httpx.Response:
        return ask.models("POST", "/register", content=content, headers={"Content-Type": kind} if kind else {})

    said = [send(b'{"repo": "x"}', None), send(b'{"repo": "x"}', "text/plain"), send(b"{"), send(b"{}")]
    said += [send(b'{"repo": 5}'), send(b'{"repo": "' + b"x" * 2_200_000 + b'"}')]
    assert [each.status_code for each in said] == [415, 415, 400, 422, 422, 413]
    assert all(each.headers["content-type"].startswith("text/plain") for each in said)
    assert "Failed to parse the request body as JSON" in said[2].text
    assert ask.models("POST", "/register", None, content=b"{").status_code == 401  # who asks goes first


def test_wrong_methods_are_405_for_those_who_may_be_there(ask: Asking) -> None:
    for below in ("/pull", "/discover-gguf", "/registry/a/b/manifest.json"):
        assert ask.models("POST", below).status_code == 405
        assert ask.models("POST", below, None).status_code == 401
        assert ask.models("POST", below, ask.router.api_key).status_code == 403
    assert ask.models("GET", "/registry/a/b/manifest.json").status_code == 405  # a raw slash
    assert ask.models("DELETE", "/hub").status_code == 405
    assert ask("GET", "/v1/models/a/b").status_code == 404
    assert ask("GET", "/nothing/here", None).content == b""


# -- models


def _said(answer: httpx.Response, ask: Asking) -> str:
    """The error's sentence; its prefix is checked here."""
    sentence = answer.json()["error"]
    prefixed = ask.router.generation != "G4"
    assert sentence.startswith("Validation error: ") == prefixed, sentence
    return sentence.removeprefix("Validation error: ")


def test_registering_stores_metadata_under_the_repos_name(ask: Asking) -> None:
    answer = ask.register(PHI, filename=PHI_FILE)
    assert answer.status_code == 201
    assert answer.json() == {
        "name": PHI_NAME,
        "status": "registered",
        "filename": PHI_FILE,
        "size_bytes": 0,
        "required_memory_bytes": 0,
        "warnings": [],
    }
    listed = ask.models("GET").json()
    assert [each["name"] for each in listed] == [PHI_NAME]
    curated = ask.router.generation in ("G1", "G2")
    assert listed[0]["size"] == (2390000000 if curated else 0)
    assert listed[0]["status"] == "registered" and "chat_template" not in listed[0]
    again = ask.register(f"https://huggingface.co/{PHI}/resolve/main/Phi-3-mini-4k-instruct-Q8_0.gguf")
    assert (again.status_code, _said(again, ask)) == (400, "Model already registered")


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ({"repo": "  "}, "repo is required"),
        ({"repo": "no/such"}, "Failed to fetch specified repository"),
        ({"repo": "acme/gated-GGUF"}, "Failed to fetch specified repository"),
        ({"repo": "hf.co/acme/two-files-GGUF"}, "Failed to fetch specified repository"),
        ({"repo": f"https://huggingface.co/{PHI}?x=1"}, "Failed to fetch specified repository"),
        ({"repo": " acme/sharded"}, "Failed to fetch specified repository"),
        ({"repo": "acme/two-files-GGUF"}, "Multiple GGUF files found; specify filename"),
        ({"repo": "acme/mixed"}, "Multiple artifact types found; specify filename"),
        ({"repo": "acme/no-weights"}, "No supported model artifacts found (safetensors/gguf)"),
        ({"repo": "acme/two-files-GGUF", "filename": "x.gguf"}, "Specified file not found in repository"),
        ({"repo": "acme/two-files-GGUF", "filename": ""}, "filename must not be empty"),
        ({"repo": "acme/two-files-GGUF", "filename": "../x"}, "filename contains invalid path segment"),
        ({"repo": "acme/two-files-GGUF", "filename": "/x"}, "filename must be a relative path"),
        ({"repo": "acme/no-weights", "filename": "README.md"}, "filename must be a .gguf or .safetensors file"),
        ({"repo": "acme/bare-safetensors"}, "config.json and tokenizer.json are required for safetensors models"),
    ],
)
def test_a_refused_registration_says_why(ask: Asking, body: dict[str, str], sentence: str) -> None:
    answer = ask.models("POST", "/register", json=body)
    assert (answer.status_code, _said(answer, ask)) == (400, sentence)


def test_an_unreachable_hub_is_502(ask: Asking) -> None:
    ask.router.hf.down = True
    answer = ask.register(PHI, filename=PHI_FILE)
    wanted = "Backend service unavailable" if ask.router.generation == "G4" else "HTTP client error: "
    assert answer.status_code == 502 and answer.json()["error"].startswith(wanted)


def test_files_come_from_the_request_the_url_or_the_compiled_in_list(ask: Asking) -> None:
    by_url = ask.register("https://huggingface.co/acme/two-files-GGUF/blob/dev/two-Q8_0.gguf")
    assert by_url.json()["filename"] == "two-Q8_0.gguf"
    bare = ask.register(PHI)
    curated = ask.router.generation in ("G1", "G2")
    assert bare.json().get("filename") == (PHI_FILE if curated else None)
    shard = ask.register("acme/sharded", filename="model-00001-of-00002.safetensors").json()["filename"]
    assert shard == ("model-00001-of-00002.safetensors" if ask.router.generation == "G1" else _INDEX)


_INDEX = "model.safetensors.index.json"


def test_sizes_and_warnings_follow_the_hubs_listing(ask: Asking) -> None:
    told = ask.register("acme/sized-GGUF").json()
    assert (told["size_bytes"], told["required_memory_bytes"]) == (8_200_000_001, 12_300_000_002)
    whose = "nodes" if ask.router.generation in ("G1", "G2") else "endpoints"
    assert told["warnings"] == [f"No GPU memory info available from registered {whose}"]


def test_deleting_takes_both_spellings_of_a_slash_and_400_for_what_is_unknown(ask: Asking) -> None:
    for spelt in (quote(PHI_NAME, safe=""), PHI_NAME):
        assert ask.register(PHI, filename=PHI_FILE).status_code == 201
        answer = ask.models("DELETE", f"/{spelt}")
        assert (answer.status_code, answer.content) == (204, b"")
    unknown = ask.models("DELETE", "/no%2Fsuch")
    assert (unknown.status_code, _said(unknown, ask)) == (400, "model not found")


def test_a_delete_is_undone_after_five_minutes_by_node_generations_only(ask: Asking) -> None:
    ask.register(PHI, filename=PHI_FILE)
    ask.models("DELETE", f"/{PHI_NAME}")
    ask.router.clock.advance(299)
    assert ask.models("GET").json() == []
    ask.router.clock.advance(1)
    back = [each["name"] for each in ask.models("GET").json()]
    assert back == ([PHI_NAME] if ask.router.generation in ("G1", "G2") else [])


def test_the_hub_is_five_fixed_models_or_what_is_registered(ask: Asking) -> None:
    ask.register("acme/two-files-GGUF", filename="two-Q8_0.gguf")
    ask.register(PHI, filename=PHI_FILE)
    ask.router.add_node(loaded=[PHI_NAME], status="offline")
    hub = ask.models("GET", "/hub").json()
    found = {each["id"]: (each["status"], each.get("lifecycle_status")) for each in hub}
    if ask.router.generation in ("G1", "G2"):
        ids = ["qwen2.5-7b-instruct", "llama3.2-3b-instruct", "mistral-7b-instruct", "phi-3-mini", "gemma-2-9b"]
        assert list(found) == ids
        assert found["phi-3-mini"] == ("downloaded", "registered") and found["gemma-2-9b"] == ("available", None)
    else:
        assert found == {
            "acme/two-files-gguf": ("available", "registered"),
            PHI_NAME: ("downloaded", "registered"),
        }
        assert "quantization" not in hub[0]
    assert all(each["capabilities"] == ["TextGeneration"] and "download_progress" not in each for each in hub)
    ask.router.hf.down = True
    assert all("hf_info" not in each for each in ask.models("GET", "/hub").json())


def test_manifests_name_files_without_sizes(ask: Asking) -> None:
    ask.register(PHI, filename=PHI_FILE)
    ask.register("acme/sharded")
    wrapped = ask.router.generation in ("G3", "G4")
    phi = ask.models("GET", f"/registry/{quote(PHI_NAME, safe='')}/manifest.json").json()
    url = f"https://huggingface.co/{PHI}/resolve/main/{PHI_FILE}"
    assert phi["files"] == [{"name": "model.gguf", "runtimes": ["llama_cpp"], "url": url}]
    assert phi.get("format") == ("gguf" if wrapped else None) and phi.get("quantization") == (
        (wrapped and "Q4_K_M") or None
    )
    sharded = ask.models("GET", "/registry/acme%2Fsharded/manifest.json").json()["files"]
    assert [(each["name"], each.get("priority")) for each in sharded[:3]] == [
        ("config.json", 10),
        ("tokenizer.json", 10),
        (_INDEX, 5),
    ]
    assert sharded[3].get("runtimes") == (["safetensors_cpp"] if wrapped else None)
    unknown = ask.models("GET", "/registry/no%2Fsuch/manifest.json")
    assert (unknown.status_code, json.loads(unknown.content)) == (404, {"error": "Model not found: no/such"})
    assert ("content-type" in unknown.headers) == (ask.router.generation == "G4")
    assert ask.models("GET", "/registry/a%2Bb/manifest.json").status_code == 400
    ask.router.hf.down = True
    assert ask.models("GET", f"/registry/{quote(PHI_NAME, safe='')}/manifest.json").status_code == 502


def test_v1_lists_the_registered_or_what_online_endpoints_have(ask: Asking) -> None:
    ask.register(PHI, filename=PHI_FILE)
    waiting = ask("GET", "/v1/models").json()["data"]
    nodes = ask.router.generation in ("G1", "G2")
    assert [(each["id"], each["ready"], each["lifecycle_status"]) for each in waiting] == (
        [(PHI_NAME, False, "pending")] if nodes else []
    )
    detail = ask("GET", f"/v1/models/{quote(PHI_NAME, safe='')}").json()
    assert (detail["ready"], detail["lifecycle_status"]) == (False, "pending") and "download_progress" not in detail
    ask.router.add_node(loaded=[PHI_NAME])
    ready = ask("GET", "/v1/models").json()["data"]
    assert [(each["id"], each["ready"], each["owned_by"]) for each in ready] == [
        (PHI_NAME, True, "router" if nodes else "load balancer")
    ]
    assert "repo" in ready[0] and ("supported_apis" in ready[0]) == (not nodes)
    unknown = ask("GET", "/v1/models/no%2Fsuch")
    assert unknown.status_code == 404 and unknown.json()["error"]["code"] == "model_not_found"


def test_models_of_providers_are_listed_last_and_have_no_repo(ask: Asking) -> None:
    ask.router.cloud_models = ["openai:gpt-4o"]
    (cloud,) = ask("GET", "/v1/models").json()["data"]
    assert (cloud["id"], cloud["owned_by"], cloud["ready"]) == ("openai:gpt-4o", "openai", True)
    assert "repo" not in cloud
    assert ask("GET", "/v1/models/openai%3Agpt-4o").status_code == 404
