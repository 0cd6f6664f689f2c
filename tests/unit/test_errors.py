"""Every error a user can meet has words: what happened, what to do, and nothing that is nobody's business."""

from __future__ import annotations

import inspect
import logging

import pytest

from modelhub_tui import errors
from modelhub_tui.errors import (
    Advice,
    AlreadyRegistered,
    BadCatalog,
    BadReference,
    BadSettings,
    Forbidden,
    LoginNeeded,
    ModelHubError,
    NotARouter,
    NotDownloaded,
    NotFound,
    NotHeard,
    NotPulled,
    NotSupported,
    NoWay,
    PasswordChangeNeeded,
    RateLimited,
    Rejected,
    RouterFault,
    ServiceFailed,
    TookTooLong,
    Unauthorised,
    Unforeseen,
    Unreachable,
    explain,
)

# Each: an error, and all that is said.
WORDED: list[tuple[ModelHubError, str]] = [
    (
        Unreachable("http://gpu:8080", "refused"),
        "No router answers at http://gpu:8080. Check its address with --router, or leave it out to use this machine.",
    ),
    (NoWay("ALL_PROXY=socks://x is not understood."), "ALL_PROXY=socks://x is not understood."),
    (Unreachable(), "No router answers. Check its address with --router, or leave it out to use this machine."),
    (
        NotARouter("http://x", "a web page"),
        "http://x is a web page, not a model router. Point --router at an llm-router, llmlb or modelhub service.",
    ),
    (
        LoginNeeded("http://x"),
        "The router wants a valid API key or a login. "
        "Give one with --api-key or MODELHUB_API_KEY, or log in: `modelhub login`.",
    ),
    (
        LoginNeeded("http://x", expired=True),
        "The login has expired, or is not accepted any more. Log in again: `modelhub login`.",
    ),
    (LoginNeeded("http://x", wrong=True), "User name or password are wrong. Try to log in again."),
    (
        PasswordChangeNeeded(),
        "The router wants a new password for this user first. Set one with `modelhub login`.",
    ),
    (Unauthorised(), "The router wants a valid API key. Give one with --api-key or MODELHUB_API_KEY."),
    (Forbidden(), "This API key may not do that. Use a key with admin rights."),
    (NotFound("a/b"), "The router knows no model a/b. `modelhub list` shows the names."),
    (NotPulled("a/b"), "a/b is not being downloaded. Start it with `modelhub pull a/b`."),
    (
        NotDownloaded("a-b"),
        "a-b is not downloaded, so there is nothing to delete. `modelhub local` shows what is.",
    ),
    (AlreadyRegistered("a/b"), "a/b is registered already."),
    (Rejected("No."), "No."),
    (Rejected("Several files.", candidates=("x", "y")), "Several files. Choose one of: x, y."),
    (RateLimited(), "The hub asks us to slow down. Try again in a minute."),
    (RateLimited(retry_after_s=12.4), "The hub asks us to slow down. Try again in 12 s."),
    (RateLimited(retry_after_s=0), "The hub asks us to slow down. Try again in 0 s."),
    (RouterFault("500 oops"), "The router failed: 500 oops. Its log says more."),
    (RouterFault("Too old."), "The router failed: Too old. Its log says more."),
    (
        Unforeseen(),
        "Something unexpected went wrong. The log has the details; `modelhub status` says where it is.",
    ),
    (
        TookTooLong("Waiting for gpu-01.", 60.0),
        "Waiting for gpu-01. That took longer than 60 s. "
        "`--timeout SECONDS` allows for more, 0 for any time; what was ordered goes on.",
    ),
    (
        NotHeard("It has not reported."),
        "What is on the disk is not known yet: It has not reported. Try again; `modelhub doctor` may say more.",
    ),
    (NotSupported("retry"), "This router cannot retry."),
    (BadReference("Type owner/name."), "Type owner/name."),
    (BadSettings("No."), "No."),
    (
        BadCatalog("c.yaml", ("c.yaml:1: a; b",)),
        "The catalog cannot be used: c.yaml:1: a; b. `modelhub catalog check` lists every problem.",
    ),
    (
        BadCatalog("c.yaml", ("c.yaml:1: a", "c.yaml:2: b", "c.yaml:3: c")),
        "The catalog cannot be used: c.yaml:1: a (and 2 more). `modelhub catalog check` lists every problem.",
    ),
    (BadCatalog("c.yaml", ()), "The catalog cannot be used: c.yaml. `modelhub catalog check` lists every problem."),
    (ServiceFailed("It did not start.", "See its log."), "It did not start. See its log."),
    (ServiceFailed("It did not start."), "It did not start."),
]


@pytest.mark.parametrize(("error", "said"), WORDED, ids=[type(each[0]).__name__ for each in WORDED])
def test_wording(error: ModelHubError, said: str) -> None:
    assert str(explain(error)) == said


def test_every_error_has_a_wording(caplog: pytest.LogCaptureFixture) -> None:
    kinds = {
        kind
        for _, kind in inspect.getmembers(errors, inspect.isclass)
        if issubclass(kind, ModelHubError) and kind is not ModelHubError
    }
    assert {type(error) for error, _ in WORDED} == kinds
    for error, _ in WORDED:
        explain(error)
    assert not caplog.records, "one of them fell through to the unexpected"


def test_the_unexpected_goes_to_the_log_and_not_to_the_user(caplog: pytest.LogCaptureFixture) -> None:
    try:
        raise KeyError("hf_secret_token")
    except KeyError as caught:
        error = caught
    with caplog.at_level(logging.ERROR):
        advice = explain(error)
    assert (
        str(advice) == "Something unexpected went wrong. The log has the details; `modelhub status` says where it is."
    )
    assert caplog.records[0].exc_info and caplog.records[0].exc_info[1] is error


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            PermissionError(13, "Permission denied", "/srv/x"),
            "No permission for /srv/x. Change its owner or mode, or choose another folder.",
        ),
        (OSError(28, "No space left on device", "/data"), "/data: No space left on device."),
        (OSError(28, "No space left on device", "/\x1b[31m"), "/[31m: No space left on device."),
        (
            PermissionError(13, "Permission denied", "/\u202ex"),
            "No permission for /x. Change its owner or mode, or choose another folder.",
        ),
    ],
)
def test_errors_of_the_system(error: OSError, said: str) -> None:
    assert str(explain(error)) == said


def test_no_advice_looks_like_a_traceback() -> None:
    for error in (*(each for each, _ in WORDED), ValueError("x"), OSError(), OSError(5, "io"), KeyboardInterrupt()):
        said = str(explain(error))
        assert said
        assert "Traceback" not in said and 'File "' not in said and "\n" not in said


def test_advice_reads_as_one_text() -> None:
    assert str(Advice("What.", "Do.")) == "What. Do."
    assert str(Advice("What.")) == "What."
