"""What a software GPU has to say of its driver, as findings of `nvcore doctor`.

Owns nothing: asks each card for its journal, under the card's lock. Any thread.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from nvcore.api.offers import Finding
from nvcore_softgpu.device import Card, Inspector

__all__ = ["BROKEN_RULE", "findings"]

BROKEN_RULE: Final = "NVC-7003"
"""Code of a finding: the driver broke a rule of the device."""

_SHOWN: Final = 5  # the first are causes, later ones mostly their consequences


def findings(cards: Iterable[Card]) -> Iterator[Finding]:
    """Each card's violations, the first ones in full, and what it did not know; one good word where there is nothing."""
    for card in cards:
        seen, name = Inspector(card), f"{card.address}: software {card.model.chip.name}"
        violations = seen.violations
        remedy = "nvcore softgpu violations says what the names mean; report it to the driver's authors"
        for violation in violations[:_SHOWN]:
            yield Finding("error", f"{name}: {violation!r}", BROKEN_RULE, remedy)
        if len(violations) > _SHOWN:
            yield Finding("error", f"{name}: {len(violations) - _SHOWN} further violations", BROKEN_RULE, remedy)
        strange = [f"register {offset:#x}" for offset, _ in seen.unknown_registers]
        strange += [f"control {command:#x}" for command in seen.unknown_controls]
        if strange:
            more = f" and {len(strange) - _SHOWN} more" if len(strange) > _SHOWN else ""
            yield Finding("warning", f"{name} does not know {', '.join(strange[:_SHOWN])}{more}", BROKEN_RULE, remedy)
        if not violations and not strange:
            yield Finding("ok", f"{name}: its driver broke no rule")
