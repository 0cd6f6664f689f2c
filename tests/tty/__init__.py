"""Driving programs in a pseudo-terminal, as a person at a modern terminal would."""

from __future__ import annotations

from tests.tty.emulator import Emulator
from tests.tty.terminal import Terminal

__all__ = ["Emulator", "Terminal"]
