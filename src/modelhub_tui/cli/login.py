"""`modelhub login` and `modelhub logout`: sessions with routers that have users."""

from __future__ import annotations

import getpass
import sys
import time
from argparse import Namespace
from contextlib import suppress
from dataclasses import replace

from modelhub_tui.cli import OK
from modelhub_tui.cli.fleet import Connect
from modelhub_tui.cli.output import Console
from modelhub_tui.cli.trouble import BadUsage
from modelhub_tui.cli.waiting import Patience
from modelhub_tui.client import auth
from modelhub_tui.config import Settings
from modelhub_tui.errors import ModelHubError, PasswordChangeNeeded
from modelhub_tui.units import human_duration


def login(arguments: Namespace, settings: Settings, console: Console, connect: Connect) -> int:  # noqa: ARG001
    """Log in with a user name and a password, and keep the session for this router."""
    url = _router(settings)
    username = arguments.username or ("" if arguments.password_stdin else _ask_name())
    if not username:
        raise BadUsage("Name the user with --username.")
    if arguments.password_stdin:
        password = sys.stdin.readline().rstrip("\r\n")
    else:
        password = _ask_password(f"Password of {username}: ")
    patience = Patience(arguments, console)
    patience.why = f"Waiting for {url} to answer."
    session = patience.run(auth.login(url, username, password))
    if session.must_change_password:
        if arguments.password_stdin:
            raise PasswordChangeNeeded
        console.say("The router wants a new password for this user first.")
        new = _ask_password("New password: ")
        if new != _ask_password("The same again: "):
            raise BadUsage("The two passwords differ; nothing was changed.")
        session = patience.run(_change(url, session, username, new))
    auth.Sessions(settings.state_dir).store(url, session)
    lasts = human_duration(max(session.expires_at - time.time(), 0.0))
    role = f" ({session.role})" if session.role else ""
    console.say(f"Logged in to {url} as {session.username}{role}; good for {lasts}.")
    return OK


def logout(arguments: Namespace, settings: Settings, console: Console, connect: Connect) -> int:  # noqa: ARG001
    """Forget the session kept for this router."""
    url = _router(settings)
    sessions = auth.Sessions(settings.state_dir)
    session = sessions.load(url)
    there = sessions.forget(url)
    if session is not None:
        with suppress(ModelHubError):  # it only takes note; what counts is that the token is gone here
            patience = Patience(arguments, console)
            patience.why = f"Waiting for {url} to answer."
            patience.run(auth.logout(url, session))
    console.say(f"Logged out of {url}." if there else f"Nobody is logged in to {url}.")
    return OK


async def _change(url: str, session: auth.Session, username: str, password: str) -> auth.Session:
    """Set the new password; the token from before still says that it is needed, so log in anew."""
    await auth.change_password(url, session, password)
    return replace(await auth.login(url, username, password), must_change_password=False)


def _router(settings: Settings) -> str:
    if settings.router is None:
        raise BadUsage("The service on this machine has no users; name a router with --router.")
    return settings.router


def _ask_name() -> str:
    if not (sys.stdin and sys.stdin.isatty()):
        raise BadUsage("There is no terminal to ask on; give --username and --password-stdin.")
    print("User name: ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip()


def _ask_password(prompt: str) -> str:
    if not (sys.stdin and sys.stdin.isatty()):
        raise BadUsage("There is no terminal to ask on; pipe the password in with --password-stdin.")
    return getpass.getpass(prompt)
