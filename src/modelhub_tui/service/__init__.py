"""The local service: one router and one node on this machine, in the background. See docs/wire.md for what it speaks."""

from __future__ import annotations
