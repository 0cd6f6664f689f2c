"""Bare requests to each fake in turn: nothing of our client is in between."""

from __future__ import annotations

from typing import Any

import httpx

PHI = "bartowski/Phi-3-mini-4k-instruct-GGUF"
PHI_NAME = PHI.lower()
PHI_FILE = "Phi-3-mini-4k-instruct-Q4_K_M.gguf"


class Asking:
    """One router and bare requests to it."""

    def __init__(self, router: Any) -> None:
        self.router = router
        self.http = httpx.Client(base_url=router.url, trust_env=False, timeout=10)

    def __call__(self, method: str, path: str, credential: str | None = "admin", **more: Any) -> httpx.Response:
        headers = more.pop("headers", {})
        if credential is not None:
            headers = {**self.router.bearer(None if credential == "admin" else credential), **headers}
        self.http.cookies.clear()
        return self.http.request(method, path, headers=headers, **more)

    def models(self, method: str, below: str = "", credential: str | None = "admin", **more: Any) -> httpx.Response:
        return self(method, f"{self.router.prefix}/models{below}", credential, **more)

    def register(self, repo: str, **more: Any) -> httpx.Response:
        return self.models("POST", "/register", json={"repo": repo, **more})
