"""Textual's Linux driver, taking over from the instant frame without a flicker or a lost key."""

from __future__ import annotations

import os
import selectors
import signal
import sys
import time
from codecs import getincrementaldecoder
from collections.abc import Callable, Iterable
from contextlib import suppress
from threading import Event
from typing import Any

from textual._parser import ParseError
from textual._xterm_parser import XTermParser
from textual.drivers.linux_driver import LinuxDriver
from textual.events import Key, Paste
from textual.keys import Keys
from textual.message import Message

from modelhub_tui.terminal import instant
from modelhub_tui.terminal.pacing import ANSWERS, Pace

_ALT_SCREEN = "\x1b[?1049h"
_PATIENCE_S = 10.0
"""Input is delivered after this at the latest, whether or not a frame has been painted."""

_LAST_ANSWERS_S, _FIRST_ANSWER_S = 0.6, 0.2
"""How long leaving waits for answers that are on their way: from a terminal that answers, from one that may not."""


class HandoverDriver(LinuxDriver):
    """Starts on the screen the instant frame has prepared, or as stock where there is none."""

    _skip_alt_screen = False
    hears_answers = False
    """Somebody waits for the terminal's answers to status queries."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._released = Event()
        self.hears_answers = hasattr(self._app, "terminal_answered")

    def start_application_mode(self) -> None:
        """Take the terminal over."""
        if (
            self._file is not None
            and not self._file.isatty()
            and sys.__stdout__ is not None
            and sys.__stdout__.isatty()
        ):
            self._file = sys.__stdout__  # `modelhub 2>log`: the picture belongs on the terminal
        held = instant.hand_over()
        self._skip_alt_screen = held is not None and held.drawn
        super().start_application_mode()
        if held is not None:
            # What Textual has just saved is our raw mode; leaving must restore what was there before us.
            self.attrs_before = held.attributes

    def write(self, data: str) -> None:
        """Write to the terminal, but do not enter the alternate screen twice: that would clear the instant frame."""
        if self._skip_alt_screen and data == _ALT_SCREEN:
            self._skip_alt_screen = False
            return
        super().write(data)

    def release_input(self) -> None:
        """Begin to deliver input. Called when the first frame is out: before it there is nobody to handle keys."""
        self._released.set()

    def process_message(self, message: Message) -> None:
        """Hand a message on; an answer that came amid a paste is no part of it."""
        if isinstance(message, Paste) and "\x1b[" in message.text:
            for answer in ANSWERS:
                message.text = message.text.replace(answer, "")
        super().process_message(message)

    def disable_input(self) -> None:
        """Stop listening, but not before the answers are in: a shell would take them for typed."""
        pace: Pace | None = getattr(self._app, "pace", None)
        if pace is not None and pace.waiting and not pace.silent:
            until = time.monotonic() + (_LAST_ANSWERS_S if pace.answers else _FIRST_ANSWER_S)
            while pace.waiting and time.monotonic() < until and self._key_thread is not None:
                time.sleep(0.005)
        super().disable_input()

    def _answered(self) -> None:
        """In the input thread: the terminal has shown a frame."""
        app: Any = self._app
        app.pace.answered()
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(app.terminal_answered)

    def run_input_thread(self) -> None:
        """Deliver what was typed before the terminal was in raw mode, then everything else, in order.

        As in `LinuxDriver`, with a parser that knows the terminal's answers.
        """
        until = time.monotonic() + _PATIENCE_S
        while not self._released.wait(0.05) and time.monotonic() < until:
            if self.exit_event.is_set():
                break
        parser = AnswerParser(self._answered if self.hears_answers else _nothing, self._debug)
        early = instant.take_early_keys()
        if early:
            for event in parser.feed(getincrementaldecoder("utf-8")("replace").decode(early)):
                self.process_message(event)
            for _ in range(3 if early.endswith(b"\x1b") else 0):  # it is the key only if nothing follows for a while
                time.sleep(0.05)
                for event in parser.tick():
                    self.process_message(event)
        self._deliver(parser)

    def _deliver(self, parser: AnswerParser) -> None:
        """Read until told to stop."""
        decode = getincrementaldecoder("utf-8")("replace").decode
        with selectors.SelectSelector() as selector:
            selector.register(self.fileno, selectors.EVENT_READ)
            last = False
            while not last:
                last = self.exit_event.is_set()
                if selector.select(0.1):
                    data = self._read()
                    if not data and not last:
                        # Nobody else may say so: only the session's leader is told, and that may be `make`.
                        os.kill(os.getpid(), signal.SIGHUP)
                        return
                    text = decode(data, final=last)
                    for event in parser.feed(text) if text else ():
                        self.process_message(event)
                for event in parser.tick():
                    self.process_message(event)
        with suppress(EOFError, ParseError):
            for _ in parser.feed(""):
                pass

    def _read(self) -> bytes:
        """What was typed; nothing once the terminal is gone."""
        try:
            return os.read(self.fileno, 4096)
        except OSError:
            return b""


class AnswerParser(XTermParser):
    """Textual's parser, which knows no status reports and would turn them into keys.

    Args:
        answered: Called for each.
    """

    def __init__(self, answered: Callable[[], None], debug: bool = False) -> None:
        self._answered = answered
        super().__init__(debug)

    def _sequence_to_key_events(self, sequence: str, alt: bool = False) -> Iterable[Key]:
        if sequence in ANSWERS:
            self._answered()
            return (Key(Keys.Ignore, sequence),)
        return super()._sequence_to_key_events(sequence, alt)


def _nothing() -> None:
    pass
