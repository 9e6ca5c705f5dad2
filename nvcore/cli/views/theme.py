"""Glyphs and styles: one place where a state gets its mark and colour. Pure data and small pure functions."""

from __future__ import annotations

from collections import namedtuple
from typing import Final

Glyphs = namedtuple("Glyphs", "on off bad ok unknown full empty arrow wait")
"""Characters of one character set."""

UNICODE: Final = Glyphs("●", "○", "✗", "✓", "–", "█", "░", "→", "◌")
"""For terminals that say they can."""

ASCII: Final = Glyphs("*", "o", "X", "ok", "-", "#", ".", "->", "~")


_MARKS: Final = {
    ("on", "green"): "running ok started registered",
    ("wait", "yellow"): "booting starting resetting unloading stopping suspended",
    ("off", "dim"): "stopped released found disabled",
    ("bad", "bold red"): "failed lost incompatible unsupported",
}


def mark_of(state: str) -> tuple[str, str]:
    """How a state looks: which glyph (a field of Glyphs) and which style; one without a row is shown plainly, never hidden."""
    return next((mark for mark, states in _MARKS.items() if state in states.split()), ("unknown", "default"))


def duration(seconds: float) -> str:
    """ "42s", "5m07s", "3h04m", "3d04h"."""
    whole = int(max(0, seconds))
    for large, size, small, part in (("d", 86400, "h", 3600), ("h", 3600, "m", 60), ("m", 60, "s", 1)):
        if whole >= size:
            return f"{whole // size}{large}{whole % size // part:02}{small}"
    return f"{whole}s"


def gib(size: float) -> str:
    """Bytes as GiB in at most three digits: "36G", "3.7G", "0.5G"."""
    value = size / (1 << 30)
    return f"{value:.0f}G" if value >= 10 or value == int(value) else f"{value:.1f}G"
