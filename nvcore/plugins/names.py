"""Names: as PyPA normalises them, and the one that a misspelt word was meant to be. Pure functions, any thread.

Source: PyPA name normalisation (PEP 503).
"""

from __future__ import annotations

from collections.abc import Iterable


def normalise(name: str) -> str:
    """`Nvcore.FW__gsp` becomes `nvcore-fw-gsp`."""
    name = name.strip().lower().replace("_", "-").replace(".", "-")
    while "--" in name:
        name = name.replace("--", "-")
    return name


def did_you_mean(word: str, known: Iterable[str], otherwise: str) -> str:
    """A question with the closest of the known words; `otherwise` where none is close."""
    from difflib import get_close_matches

    close = get_close_matches(word, list(known), n=1)
    return f"did you mean {close[0]}?" if close else otherwise
