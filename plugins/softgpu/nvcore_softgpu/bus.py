"""The bus of software GPUs: cards that come into being when a source is opened and stay until the bus closes.

Owns the cards by source. Any thread; opening makes a model, which costs milliseconds and no VRAM that is not touched.
Source: nvcore.api.device.Bus.
"""

from __future__ import annotations

import threading
import zlib
from collections.abc import Callable, Sequence

from nvcore.api.clock import SYSTEM, Clock
from nvcore.api.device import BusEvent
from nvcore.api.errors import ConflictError, FormatError, NotFoundError
from nvcore.api.marks import may_sleep
from nvcore_softgpu.device import Card, SoftDevice
from nvcore_softgpu.programs import BootProgram, read_programs
from nvcore_softgpu.sources import parse_source

__all__ = ["SoftBus", "make_card"]


def default_address(chip: str, name: str, slot: int) -> str:
    """The bus address of a card that names none: the same at every start, whatever is opened first.

    slot: which try, when the first is taken.
    """
    bus = 0x41 + (zlib.crc32(f"{chip}/{name}".encode()) + slot) % 0xB0
    return f"0000:{bus:02x}:00.0"


def _routing(address: str) -> int:
    """"DDDD:BB:SS.F" as GspSystemInfo has it."""
    domain, bus, rest = address.split(":")
    slot, _, function = rest.partition(".")
    return int(domain, 16) << 32 | int(bus, 16) << 8 | int(slot, 16) << 3 | int(function, 16)


def make_card(source: str, *, clock: Clock = SYSTEM, slot: int = 0) -> Card:
    """A card for a source, with the behavioural GSP in it. Raises SourceError, NotFoundError, UnknownFault."""
    from nvcore_softgpu.gsp import make_gsp
    from nvcore_softgpu.images import open_shelf

    wanted = parse_source(source)
    shelf = None if wanted.firmware is None else open_shelf(wanted.firmware)
    programs: Sequence[BootProgram] = ()
    problem = ""
    if shelf is not None and wanted.firmware is not None:
        try:
            shelf.read(wanted.chip.name)  # files are opened here: the boot programs run inside a register write, where none may be
            programs = read_programs(wanted.firmware, wanted.chip.name)
        except (FormatError, OSError) as refused:
            shelf, problem = None, str(refused)
    card = Card(
        wanted.chip,
        wanted.vram,
        wanted.bar1,
        make_gsp,
        address=wanted.address or default_address(wanted.chip.name, wanted.name, slot),
        clock=clock,
        shelf=shelf,
        faults=wanted.faults,
        scattered=wanted.scattered,
        programs=programs,
    )
    if problem:
        card.model.journal.violation("firmware-file", problem)
    return card


class SoftBus:
    """`nvcore.api.device.Bus` for the scheme "softgpu"."""

    def __init__(self, *, clock: Clock = SYSTEM) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._cards: dict[str, Card] = {}
        self._callbacks: list[Callable[[BusEvent], None]] = []

    @may_sleep
    def open(self, source: str) -> SoftDevice:
        """The GPU that `source` names; made on the first opening, the same card afterwards."""
        with self._lock:
            card = self._cards.get(source)
            if card is not None and card.holder is not None and not card.holder.gone:
                raise ConflictError(
                    f"{source} is open already", seen=card.holder.identity.address, remedy="give the second GPU a name: &name=…"
                )
            new = card is None or card.closed
            if card is None or card.closed:
                card = self._make(source)
                self._cards[source] = card
            card.model.bus_address = _routing(card.address)  # on one bus with its driver, a card knows where it is
            device = SoftDevice(card, source, owns_card=False)
        if new:
            self._tell(BusEvent("added", source))
        return device

    def _make(self, source: str) -> Card:
        """A card at an address that no other card of this bus has."""
        taken = {card.address for card in self._cards.values() if not card.closed}
        slot = 0
        while True:
            card = make_card(source, clock=self._clock, slot=slot)
            if card.address not in taken:
                return card
            card.close()
            if slot >= len(taken):
                raise ConflictError(f"{source} names an address that is taken", seen=card.address, remedy="choose another address=…")
            slot += 1

    @may_sleep
    def scan(self) -> Sequence[str]:
        """Sources of the cards that exist."""
        with self._lock:
            return [source for source, card in self._cards.items() if not card.closed]

    def cards(self) -> list[Card]:
        """The cards that exist."""
        with self._lock:
            return [card for card in self._cards.values() if not card.closed]

    @may_sleep
    def subscribe(self, callback: Callable[[BusEvent], None]) -> Callable[[], None]:
        """Be told of arrivals and removals."""
        self._callbacks.append(callback)

        def end() -> None:
            if callback in self._callbacks:
                self._callbacks.remove(callback)

        return end

    @may_sleep
    def remove(self, source: str) -> None:
        """Pull a card: whoever has it open gets DeviceGone."""
        with self._lock:
            card = self._cards.pop(source, None)
        if card is None:
            raise NotFoundError(f"no card {source}", expected=", ".join(self._cards) or "no cards at all")
        card.close()
        self._tell(BusEvent("removed", source))

    @may_sleep
    def close(self) -> None:
        """Pull every card."""
        with self._lock:
            cards = list(self._cards.values())
            self._cards.clear()
        for card in cards:
            card.close()

    def _tell(self, event: BusEvent) -> None:
        for callback in list(self._callbacks):
            callback(event)
