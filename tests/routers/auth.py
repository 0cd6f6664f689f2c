"""Users, JWTs, API keys, and the rules which of them opens what."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import secrets
import string
import uuid
from collections.abc import Collection
from dataclasses import dataclass, field
from http.cookies import SimpleCookie
from typing import Any
from urllib.parse import urlsplit

from tests.routers.base import Access, Answered, Clock, Request, failure, text

NIL = "00000000-0000-0000-0000-000000000000"
DAY_S = 86400
NO_KEY = "Missing X-API-Key header or Authorization header"
BAD_FORMAT = "Invalid Authorization header format. Expected 'Bearer <token>'"


@dataclass
class User:
    """Somebody who can log in."""

    username: str
    password: str = field(repr=False)
    role: str = "admin"
    must_change_password: bool = False
    id: str = field(default_factory=lambda: str(uuid.uuid4()))


@dataclass
class ApiKey:
    """A key and what it may do: scopes, or G4's permissions."""

    key: str = field(repr=False)
    rights: frozenset[str]
    name: str = "key"
    expires_at: float | None = None
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    created_at: float = 0.0
    created_by: str = NIL


@dataclass(frozen=True)
class Principal:
    """Who asks."""

    user: User | None = None
    key: ApiKey | None = None
    claims: dict[str, Any] | None = None

    @property
    def role(self) -> str:
        """`admin` for who may write."""
        if self.user is not None:
            return self.user.role
        return "admin" if self.key is not None and "admin" in self.key.rights else "viewer"


NOBODY = Principal(User("admin", "", "admin", id=NIL))
"""Who everybody is while authentication is disabled."""


def denied(words: str, status: int = 401) -> Answered:
    """Every failure of authentication is plain text."""
    return Answered(text(status, words))


def _b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _unb64(part: str) -> Any:
    return json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))


def looks_like_jwt(value: str) -> bool:
    """Three non-empty parts, the first of which decodes to a header."""
    parts = value.split(".")
    if len(parts) != 3 or not all(parts):
        return False
    try:
        return isinstance(_unb64(parts[0]), dict)
    except (ValueError, binascii.Error):
        return False


class Auth:
    """The users and keys of one router.

    Args:
        disabled: `AUTH_DISABLED` is set (G1 to G3).
        cookies: Reads G4's cookies and judges CSRF.
    """

    def __init__(self, clock: Clock, *, disabled: bool = False, cookies: bool = False) -> None:
        self.clock, self.disabled, self.cookies = clock, disabled, cookies
        self.users: dict[str, User] = {}
        self.keys: dict[str, ApiKey] = {}
        self._secret = secrets.token_bytes(32)
        self._expired: set[str] = set()
        self._issued: set[str] = set()

    # -- making credentials

    def add_user(self, username: str, password: str, role: str = "admin", *, must_change: bool = False) -> User:
        """Make an account."""
        self.users[username] = User(username, password, role, must_change)
        return self.users[username]

    def add_key(self, *rights: str, name: str = "key", expires_at: float | None = None) -> str:
        """Issue a key."""
        alphabet = string.ascii_letters + string.digits
        key = "sk_" + "".join(secrets.choice(alphabet) for _ in range(32))
        self.keys[key] = ApiKey(key, frozenset(rights), name, expires_at, created_at=self.clock())
        return key

    def issue(self, user: User, *, for_s: float = DAY_S) -> str:
        """Sign a token; never one that `expire_tokens()` has aged."""
        claims: dict[str, Any] = {"sub": user.id, "role": user.role, "exp": int(self.clock() + for_s)}
        if self.cookies:
            claims["must_change_password"] = user.must_change_password
        head = _b64(json.dumps({"typ": "JWT", "alg": "HS256"}).encode())
        while True:
            signed = f"{head}.{_b64(json.dumps(claims).encode())}"
            token = f"{signed}.{self._sign(signed)}"
            if token not in self._expired:
                break
            claims["exp"] += 1
        self._issued.add(token)
        return token

    def expire_tokens(self) -> None:
        """Every token issued so far is too old from now on."""
        self._expired |= self._issued

    def log_in(self, username: str, password: str) -> User | None:
        """The user, if the password is right."""
        user = self.users.get(username)
        return user if user is not None and hmac.compare_digest(user.password, password) else None

    # -- judging them

    def _sign(self, signed: str) -> str:
        return _b64(hmac.new(self._secret, signed.encode(), hashlib.sha256).digest())

    def read_jwt(self, token: str) -> Principal:
        """The user behind a token; every reason against it is 401."""
        if not looks_like_jwt(token):
            raise denied("Invalid token: InvalidToken")
        signed, _, signature = token.rpartition(".")
        if not hmac.compare_digest(self._sign(signed), signature):
            raise denied("Invalid token: InvalidSignature")
        claims = _unb64(signed.split(".")[1])
        if token in self._expired or claims["exp"] < self.clock():
            raise denied("Invalid token: ExpiredSignature")
        user = next((each for each in self.users.values() if each.id == claims["sub"]), None)
        if user is None:
            raise denied("Invalid token: unknown user")
        return Principal(user=user, claims=claims)

    def _bearer(self, request: Request) -> str | None:
        given = request.headers.get("authorization")
        if given is None:
            return None
        if not given.startswith("Bearer "):
            raise denied(BAD_FORMAT)
        return given.removeprefix("Bearer ")

    def _key(self, request: Request, missing: str = NO_KEY) -> ApiKey:
        """The key: `X-API-Key` wins over `Authorization`."""
        value = request.headers.get("x-api-key") or self._bearer(request)
        if value is None:
            raise denied(missing)
        key = self.keys.get(value)
        if key is None:
            raise denied("Invalid API key")
        if key.expires_at is not None and key.expires_at <= self.clock():
            raise denied("API key expired")
        return key

    def _token(self, request: Request) -> str | None:
        """A JWT from Authorization, else from G4's cookie."""
        given = request.headers.get("authorization", "")
        if given.startswith("Bearer ") and looks_like_jwt(given.removeprefix("Bearer ")):
            return given.removeprefix("Bearer ")
        return self.cookie(request, "llmlb_jwt") if self.cookies else None

    def cookie(self, request: Request, name: str) -> str | None:
        """One cookie of the request."""
        found = SimpleCookie(request.headers.get("cookie", "")).get(name)
        return found.value if found else None

    def _check_csrf(self, request: Request) -> None:
        """Only for writes whose sole credential is the cookie."""
        if not self.cookies or request.method not in ("POST", "PUT", "PATCH", "DELETE"):
            return
        if "authorization" in request.headers or "x-api-key" in request.headers:
            return
        wanted, given = self.cookie(request, "llmlb_csrf"), request.headers.get("x-csrf-token")
        if not wanted:
            raise denied("Missing CSRF cookie", 403)
        if not given:
            raise denied("Missing CSRF header", 403)
        if not hmac.compare_digest(wanted, given):
            raise denied("Invalid CSRF token", 403)
        origin = request.headers.get("origin") or request.headers.get("referer") or ""
        if urlsplit(origin).netloc != request.headers.get("host"):
            raise denied("Origin validation failed", 403)

    def _user(self, request: Request, token: str, *, admin: bool, unaffected: bool = True) -> Principal:
        principal = self.read_jwt(token)
        self._check_csrf(request)
        if not unaffected and principal.claims and principal.claims.get("must_change_password"):
            raise Answered(failure(403, "password_change_required"))
        if admin and principal.role != "admin":
            raise denied("Admin access required", 403)
        return principal

    # -- access rules of routes

    def jwt_or_key(
        self,
        rights: Collection[str],
        refusal: str,
        *,
        admin: bool = True,
        always: bool = False,
        unaffected: bool = True,
    ) -> Access:
        """A JWT, or a key with one of `rights`. What looks like a JWT is judged as one only.

        Args:
            admin: The JWT's user must be an admin.
            always: Checked even when authentication is disabled.
            unaffected: Open although the password must be changed (G4).
        """

        def access(request: Request) -> Principal:
            if self.disabled and not always:
                return NOBODY
            token = self._token(request)
            if token is not None:
                return self._user(request, token, admin=admin, unaffected=unaffected)
            key = self._key(request)
            if not key.rights & set(rights):
                raise denied(refusal, 403)
            return Principal(key=key)

        return access

    def key_only(self, rights: Collection[str], refusal: str = "Insufficient API key scope") -> Access:
        """A key; a JWT is a wrong key here."""

        def access(request: Request) -> Principal:
            if self.disabled:
                return NOBODY
            key = self._key(request)
            if not key.rights & set(rights):
                raise denied(refusal, 403)
            return Principal(key=key)

        return access

    def jwt_only(self, *, admin: bool = False, unaffected: bool = True) -> Access:
        """A JWT; no key works."""

        def access(request: Request) -> Principal:
            if self.disabled:
                return NOBODY
            token = self._bearer(request) or (self.cookie(request, "llmlb_jwt") if self.cookies else None)
            if token is None:
                raise denied("Missing Authorization header")
            return self._user(request, token, admin=admin, unaffected=unaffected)

        return access
