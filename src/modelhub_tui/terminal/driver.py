"""Textual's Linux driver, taking over from the instant frame without a flicker or a lost key."""

from __future__ import annotations

import sys
import time
from codecs import getincrementaldecoder
from threading import Event
from typing import Any

from textual._xterm_parser import XTermParser
from textual.drivers.linux_driver import LinuxDriver

from modelhub_tui.terminal import instant

_ALT_SCREEN = "\x1b[?1049h"
_PATIENCE_S = 10.0
"""Input is delivered after this at the latest, whether or not a frame has been painted."""


class HandoverDriver(LinuxDriver):
    """Starts on the screen the instant frame has prepared, or as stock where there is none."""

    _skip_alt_screen = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._released = Event()

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

    def run_input_thread(self) -> None:
        """Deliver what was typed before the terminal was in raw mode, then everything else, in order."""
        until = time.monotonic() + _PATIENCE_S
        while not self._released.wait(0.05) and time.monotonic() < until:
            if self.exit_event.is_set():
                break
        early = instant.take_early_keys()
        if early:
            parser = XTermParser(self._debug)
            for event in parser.feed(getincrementaldecoder("utf-8")("replace").decode(early)):
                self.process_message(event)
            for _ in range(3 if early.endswith(b"\x1b") else 0):  # it is the key only if nothing follows for a while
                time.sleep(0.05)
                for event in parser.tick():
                    self.process_message(event)
        super().run_input_thread()
