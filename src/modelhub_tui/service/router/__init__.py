"""The router: what models there are, which nodes hold them, and what is on its way. Protocol: docs/wire.md."""

from __future__ import annotations
