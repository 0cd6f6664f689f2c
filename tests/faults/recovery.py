"""Kills, and what they cost: bytes served again, and the seconds until bytes arrive again."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Literal

import psutil

from tests.faults.machine import Machine
from tests.hub import LoopbackHub

Victim = Literal["service", "node"]


@dataclass(frozen=True, slots=True)
class Recovery:
    """One kill."""

    victim: Victim
    seconds: float
    """From the SIGKILL (of a service: with a new one started at once, as whoever runs `modelhub` does) until a new
    request brings bytes of a file."""


def kill_and_recover(machine: Machine, hub: LoopbackHub, victim: Victim, *, timeout_s: float = 60.0) -> Recovery:
    """Kill, start again what has to be started by hand, and wait until bytes flow. Some transfer must be unfinished."""
    at = time.monotonic()
    node = machine.kill_node() if victim == "node" else machine.kill()
    if victim == "service":
        machine.start()
    machine.until(lambda: flowing_since(hub, at), "bytes flow again", timeout_s)
    seconds = time.monotonic() - at
    if node:
        machine.until(lambda: not alive(node), "the old node ends")
    return Recovery(victim, seconds)


def flowing_since(hub: LoopbackHub, at: float) -> bool:
    """Whether a request that came after `at` has brought bytes of a file."""
    return any(each.at > at and each.file_bytes for each in list(hub.log))


def alive(pid: int) -> bool:
    """Whether a process still runs. A zombie does not: whoever has to collect it may take its time."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
