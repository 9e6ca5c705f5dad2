"""What a software GPU has to say of its driver, as findings of `nvcore doctor`: no error for what an operator armed or installed.

Owns nothing: asks each card for its journal and the faults that acted, under the card's lock. Any thread.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final, Literal

from nvcore.api.offers import Finding
from nvcore_softgpu.device import Card, Inspector
from nvcore_softgpu.journal import Violation

__all__ = ["BROKEN_RULE", "findings"]

BROKEN_RULE: Final = "NVC-7003"
"""Code of a finding: a rule of the device was broken."""

_SHOWN: Final = 5  # the first are causes, later ones mostly their consequences

_ARMED: Final = "injected"
_INSTALLED: Final = "firmware-file"


def findings(cards: Iterable[Card]) -> Iterator[Finding]:
    """Each card's violations, the first ones in full, and what it did not know; one good word where its driver did nothing wrong. What is
    wrong only since a fault that was armed acted is a note: it may be the fault's doing."""
    for card in cards:
        seen, name = Inspector(card), f"{card.address}: software {card.model.chip.name}"
        acted, violations = tuple(dict.fromkeys(seen.faults_acted())), seen.violations
        drivers = [violation for violation in violations if violation.name not in (_ARMED, _INSTALLED)]
        for violation in violations:
            if violation.name == _INSTALLED:
                remedy = "write the folder anew, as nvcore softgpu firmware FOLDER does, or take firmware=FOLDER out of the source"
                yield Finding("warning", f"{name}: {violation!r}; nothing is compared with the folder", BROKEN_RULE, remedy)
            elif violation.name == _ARMED:
                yield Finding("note", f"{name}: {violation!r}", BROKEN_RULE, "nothing: this fault was armed, and it acted")
        remedy = "nvcore softgpu violations says what the names mean; report it to the driver's authors"
        yield from _broken("error", name, [violation for violation in drivers if not violation.after_fault], remedy)
        if acted:
            name += f", in which faults that were armed acted ({', '.join(acted)})"
            remedy = "let the driver run on a software GPU without faults: what it does wrong there is its own"
        yield from _broken("note", name, [violation for violation in drivers if violation.after_fault], remedy)
        strange = [f"register {offset:#x}" for offset, _ in seen.unknown_registers]
        strange += [f"control {command:#x}" for command in seen.unknown_controls]
        if strange:
            more = f" and {len(strange) - _SHOWN} more" if len(strange) > _SHOWN else ""
            text = f"{name} does not know {', '.join(strange[:_SHOWN])}{more}"
            yield Finding("note" if acted else "warning", text, BROKEN_RULE, remedy)
        if not drivers and not strange:
            yield Finding("ok", f"{name}: its driver broke no rule")


def _broken(severity: Literal["error", "note"], name: str, drivers: Sequence[Violation], remedy: str) -> Iterator[Finding]:
    for violation in drivers[:_SHOWN]:
        yield Finding(severity, f"{name}: {violation!r}", BROKEN_RULE, remedy)
    if len(drivers) > _SHOWN:
        yield Finding(severity, f"{name}: {len(drivers) - _SHOWN} further violations", BROKEN_RULE, remedy)
