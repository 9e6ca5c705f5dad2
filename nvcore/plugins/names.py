"""Names of distributions, and their components. Pure functions, any thread. Source: PyPA name normalisation (PEP 503)."""

from __future__ import annotations

__all__ = ["components", "normalise"]


def normalise(name: str) -> str:
    """`Nvcore.FW__gsp` becomes `nvcore-fw-gsp`."""
    name = name.strip().lower().replace("_", "-").replace(".", "-")
    while "--" in name:
        name = name.replace("--", "-")
    return name


def components(name: str) -> list[str]:
    """The words of a distribution, module or file name, split at `-`, `_` and `.`, lower case."""
    return [word for word in normalise(name).split("-") if word]
