"""What goes over the wire to the terminal: the picture shown before Textual is imported, and frames as differences."""

from __future__ import annotations
