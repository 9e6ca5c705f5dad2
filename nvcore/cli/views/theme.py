"""Glyphs and styles: one place where a state gets its mark and colour. Pure data and small pure functions."""

from __future__ import annotations

from typing import Final, NamedTuple

__all__ = ["ASCII", "UNICODE", "Glyphs", "Mark", "duration", "gib", "mark_of"]


class Glyphs(NamedTuple):
    """Characters of one character set."""

    on: str
    off: str
    bad: str
    ok: str
    unknown: str
    full: str
    empty: str
    arrow: str
    wait: str


UNICODE: Final = Glyphs("●", "○", "✗", "✓", "–", "█", "░", "→", "◌")
ASCII: Final = Glyphs("*", "o", "X", "ok", "-", "#", ".", "->", "~")


class Mark(NamedTuple):
    """How a state looks: which glyph (a field of Glyphs) and which style."""

    glyph: str
    style: str


_MARKS: Final = {
    "running": Mark("on", "green"),
    "ok": Mark("on", "green"),
    "booting": Mark("wait", "yellow"),
    "starting": Mark("wait", "yellow"),
    "resetting": Mark("wait", "yellow"),
    "unloading": Mark("wait", "yellow"),
    "stopping": Mark("wait", "yellow"),
    "suspended": Mark("wait", "yellow"),
    "stopped": Mark("off", "dim"),
    "released": Mark("off", "dim"),
    "found": Mark("off", "dim"),
    "failed": Mark("bad", "bold red"),
    "lost": Mark("bad", "bold red"),
    "incompatible": Mark("bad", "bold red"),
    "unsupported": Mark("bad", "bold red"),
}


def mark_of(state: str) -> Mark:
    """The mark of a state; a state without a row is shown plainly, never hidden."""
    return _MARKS.get(state, Mark("unknown", "default"))


def duration(seconds: float) -> str:
    """ "42s", "5m07s", "3h04m", "3d04h"."""
    whole = int(max(0, seconds))
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02}s"
    if whole < 86400:
        return f"{whole // 3600}h{whole // 60 % 60:02}m"
    return f"{whole // 86400}d{whole // 3600 % 24:02}h"


def gib(size: float) -> str:
    """Bytes as GiB in at most three digits: "36G", "3.7G", "0.5G"."""
    value = size / (1 << 30)
    return f"{value:.0f}G" if value >= 10 or value == int(value) else f"{value:.1f}G"
