"""modelhub-tui: a keyboard-driven terminal dashboard for the models of an LLM fleet."""

from __future__ import annotations

__version__ = "0.1.0"
