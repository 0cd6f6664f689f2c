"""The local service: one router and one node on this machine, in the background. Its protocol: docs/wire.md."""

from __future__ import annotations
