"""Everything a user may be told, as types; and `explain()`, the one place that words them.

Each package translates its library's exceptions into these at its edge. A type exists only where the user would *do*
something different.
"""

from __future__ import annotations

import logging

from modelhub_tui.untrusted import clean
from modelhub_tui.values import dataclass

log = logging.getLogger(__name__)


class ModelHubError(Exception):
    """Base of all errors with a user-facing wording."""


class Unreachable(ModelHubError):
    """Nobody answered at the router's address."""

    def __init__(self, url: str = "", detail: str = "") -> None:
        super().__init__(url, detail)
        self.url, self.detail = url, detail


class NoWay(Unreachable, OSError):
    """A connection that cannot be made as this machine is set up, or that we refuse to make. `reason` is a sentence.

    An OSError too, so that whoever handles a broken connection handles this as well, only with better words.
    """

    def __init__(self, reason: str) -> None:
        super().__init__("", reason)
        self.reason = reason

    def __str__(self) -> str:
        return self.reason


class NotARouter(ModelHubError):
    """Somebody answered, but not with a router's words. `what` says what it looked like."""

    def __init__(self, url: str, what: str) -> None:
        super().__init__(url, what)
        self.url, self.what = url, what


class Unauthorised(ModelHubError):
    """401: no credential, or a wrong or expired one."""


class LoginNeeded(Unauthorised):
    """401 from a router that has users: somebody can log in with a password instead of giving a key."""

    def __init__(
        self, url: str = "", *, password_login: bool = True, expired: bool = False, wrong: bool = False
    ) -> None:
        super().__init__(url)
        self.url = url
        self.password_login = password_login
        """Whether user and password would do."""
        self.expired = expired
        """A login was used and is not good any more."""
        self.wrong = wrong
        """User name or password were refused."""


class Forbidden(ModelHubError):
    """403: a good credential without the right for this."""


class PasswordChangeNeeded(Forbidden):
    """The router wants a new password before it does anything else for this user."""


class NotFound(ModelHubError):
    """The router does not know this model."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


class NotPulled(NotFound):
    """The model is known, but nobody asked for it yet: there is no download of it."""


class NotDownloaded(NotFound):
    """The model is known, but nobody asked for it yet: there is nothing of it to delete."""


class AlreadyRegistered(ModelHubError):
    """The model is registered already; a pull treats this as success."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


class Rejected(ModelHubError):
    """The router understood and said no. `reason` is its own sentence, cleaned."""

    def __init__(self, reason: str, *, candidates: tuple[str, ...] = (), code: str = "") -> None:
        super().__init__(reason)
        self.reason, self.candidates = reason, candidates
        self.code = code
        """What kind of no it was, as docs/wire.md lists them; empty from routers that do not tell."""


class RateLimited(ModelHubError):
    """HTTP 429. `retry_after_s` in seconds, None if not given."""

    def __init__(self, *, retry_after_s: float | None = None) -> None:
        super().__init__(retry_after_s)
        self.retry_after_s = retry_after_s


class RouterFault(ModelHubError):
    """5xx, or an answer that breaks the protocol. `detail` says which, cleaned."""

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


class Unforeseen(ModelHubError):
    """A bug of ours, at the edge of a job that goes on; whoever raises it has logged what it was."""


class NotSupported(ModelHubError):
    """This router generation cannot do that. `what` completes "This router cannot ..."."""

    def __init__(self, what: str) -> None:
        super().__init__(what)
        self.what = what


class TookTooLong(ModelHubError):
    """Something did not end within the limit of `limit_s` seconds. `why` is a sentence, or empty."""

    def __init__(self, why: str, limit_s: float) -> None:
        super().__init__(why, limit_s)
        self.why, self.limit_s = why, limit_s


class NotHeard(ModelHubError):
    """A node that belongs to the router has not told yet what it holds. `why` is a sentence."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why


class BadReference(ModelHubError):
    """Text that names no HuggingFace repo. `reason` is a sentence that says what to type instead."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class BadCatalog(ModelHubError):
    """catalog.yaml cannot be used. Each problem is one line: file, line, entry, field, what to do."""

    def __init__(self, path: str, problems: tuple[str, ...]) -> None:
        super().__init__(path, problems)
        self.path, self.problems = path, problems


class BadSettings(ModelHubError):
    """A flag, environment variable or config file cannot be used. `reason` is a sentence."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class ServiceFailed(ModelHubError):
    """The local service did not start, or cannot be used. `reason` and `todo` are sentences."""

    def __init__(self, reason: str, todo: str = "") -> None:
        super().__init__(reason, todo)
        self.reason, self.todo = reason, todo


@dataclass(frozen=True, slots=True)
class Advice:
    """What happened, and what to do next: one sentence each. `todo` may be empty."""

    what: str
    todo: str = ""

    def __str__(self) -> str:
        return f"{self.what} {self.todo}".strip()


_UNEXPECTED = Advice("Something unexpected went wrong.", "The log has the details; `modelhub status` says where it is.")


def explain(error: BaseException) -> Advice:
    """Word an error for a person. The only place with user-facing error text; never a traceback, never a token."""
    match error:
        case NoWay(reason=reason):
            return Advice(reason)
        case Unreachable(url=url):
            at = f" at {url}" if url else ""
            todo = "Check its address with --router, or leave it out to use this machine."
            return Advice(f"No router answers{at}.", todo)
        case NotARouter(url=url, what=what):
            todo = "Point --router at an llm-router, llmlb or modelhub service."
            return Advice(f"{url} is {what}, not a model router.", todo)
        case LoginNeeded(wrong=True):
            return Advice("User name or password are wrong.", "Try to log in again.")
        case LoginNeeded(expired=True):
            return Advice("The login has expired, or is not accepted any more.", "Log in again: `modelhub login`.")
        case LoginNeeded():
            todo = "Give one with --api-key or MODELHUB_API_KEY, or log in: `modelhub login`."
            return Advice("The router wants a valid API key or a login.", todo)
        case PasswordChangeNeeded():
            return Advice("The router wants a new password for this user first.", "Set one with `modelhub login`.")
        case Unauthorised():
            return Advice("The router wants a valid API key.", "Give one with --api-key or MODELHUB_API_KEY.")
        case Forbidden():
            return Advice("This API key may not do that.", "Use a key with admin rights.")
        case NotPulled(name=name):
            return Advice(f"{name} is not being downloaded.", f"Start it with `modelhub pull {name}`.")
        case NotDownloaded(name=name):
            return Advice(
                f"{name} is not downloaded, so there is nothing to delete.", "`modelhub local` shows what is."
            )
        case NotFound(name=name):
            return Advice(f"The router knows no model {name}.", "`modelhub list` shows the names.")
        case AlreadyRegistered(name=name):
            return Advice(f"{name} is registered already.")
        case Rejected(reason=reason, candidates=candidates):
            return Advice(reason, "Choose one of: " + ", ".join(candidates) + "." if candidates else "")
        case RateLimited(retry_after_s=wait_s) if wait_s is not None:
            return Advice("The hub asks us to slow down.", f"Try again in {wait_s:.0f} s.")
        case RateLimited():
            return Advice("The hub asks us to slow down.", "Try again in a minute.")
        case RouterFault(detail=detail):
            return Advice(f"The router failed: {detail.rstrip('.')}.", "Its log says more.")
        case NotSupported(what=what):
            return Advice(f"This router cannot {what}.")
        case BadReference(reason=reason) | BadSettings(reason=reason):
            return Advice(reason)
        case BadCatalog(path=path, problems=problems):
            more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
            first = problems[0] if problems else path
            todo = "`modelhub catalog check` lists every problem."
            return Advice(f"The catalog cannot be used: {first}{more}.", todo)
        case ServiceFailed(reason=reason, todo=todo):
            return Advice(reason, todo)
        case TookTooLong(why=why, limit_s=limit_s):
            todo = "`--timeout SECONDS` allows for more, 0 for any time; what was ordered goes on."
            return Advice(f"{why} That took longer than {limit_s:g} s.".strip(), todo)
        case NotHeard(why=why):
            return Advice(f"What is on the disk is not known yet: {why}", "Try again; `modelhub doctor` may say more.")
        case Unforeseen():
            return _UNEXPECTED
        case PermissionError(filename=str(name)):
            return Advice(f"No permission for {clean(name)}.", "Change its owner or mode, or choose another folder.")
        case OSError(filename=str(name), strerror=str(why)):
            return Advice(f"{clean(name)}: {clean(why)}.")
        case _:
            log.error("unexpected", exc_info=error)
            return _UNEXPECTED
