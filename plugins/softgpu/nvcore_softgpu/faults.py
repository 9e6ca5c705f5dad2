"""Faults by name: what can be made to go wrong, where it acts and what it means.

Owns the table of faults and the set of armed ones of one GPU. Called under the device's lock. Faults that act inside the GSP are consumed
by the GSP through `ports.Faults`; this module knows their names only.
Source: device-model.md 13; DESIGN 6.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from nvcore.api.errors import UsageError
from nvcore_softgpu.gsp.fault_names import GSP_FAULTS

__all__ = ["ACCESS_FAULTS", "FAULTS", "HALT_PLACES", "AccessFault", "ArmedFaults", "FaultRow", "UnknownFault"]


class UnknownFault(UsageError):
    """No fault has that name, or its argument is not of its form."""

    code = "NVC-7001"
    usual_remedy = "nvcore softgpu faults lists names and arguments"


class FaultRow(NamedTuple):
    """One fault: where it acts, what its argument is ("" for none), whether it acts once or until disarmed, what it means."""

    name: str
    place: str
    argument: str
    once: bool
    meaning: str


HALT_PLACES: Final = ("boot", "prepare", "invalidate", "unset-pdb", "rpc", "unload")
"""Places of `gsp-halt@PLACE`."""

FAULTS: Final = (
    FaultRow("chip-unknown", "PMC", "", False, "BOOT_0 and BOOT_42 name a chip that does not exist"),
    FaultRow("gfw-never", "GFW boot", "", False, "the GPU's own start-up firmware stays at progress 0x3f"),
    FaultRow("timer-frozen", "PTIMER", "", False, "the GPU's time stands still"),
    FaultRow("vbios-missing", "PROM", "", False, "the ROM reads as all ones"),
    FaultRow("vbios-checksum", "PROM", "", False, "the byte sum of the first image is not zero"),
    FaultRow("vbios-no-fwsec", "PROM", "", False, "the ucode table has no FWSEC entry"),
    FaultRow("scrub-never", "falcons", "gsp or sec2, default both", False, "memory scrubbing after a reset never ends"),
    FaultRow("booter-halt", "SEC2", "", True, "the booter never halts"),
    FaultRow("booter-mailbox", "SEC2", "value, default 0x1234", True, "the booter halts with an error in mailbox 0"),
    FaultRow("bad-signature", "booter, FMC", "", True, "the signature is refused"),
    FaultRow("fwsec-error", "FWSEC", "value, default 0x21", True, "FWSEC leaves an error in the scratch register"),
    FaultRow("riscv-inactive", "GSP", "", True, "the booter reports success and the RISC-V core does not run"),
    FaultRow("wpr2-left-up", "booter, reset", "", True, "an unload or a reset leaves WPR2 set"),
    FaultRow("wpr2-lingers", "reset", "seconds, default 1", True, "a reset takes WPR2 down only after that time"),
    FaultRow("fsp-silent", "FSP", "", True, "the security processor takes the packet and never answers"),
    FaultRow("fsp-error", "FSP", "code, default 0xa1", True, "the security processor answers with an error"),
    FaultRow("fmc-error", "FMC", "value, default 0x1234", True, "the FMC leaves an error in the GSP's mailbox 0"),
    FaultRow("lockdown-stuck", "FMC", "", True, "the GSP's lockdown is never released"),
    FaultRow("stuck-invalidate", "MMU", "", False, "an invalidate never completes"),
    FaultRow("flush-stuck", "PBUS", "", False, "a flush never completes"),
    FaultRow("msi-lost", "interrupts", "", False, "no interrupt message is sent"),
    FaultRow("mmu-fault", "host engine", "", True, "the next translation for a channel fails"),
    FaultRow("no-init-done", "GSP", "", True, "the firmware starts and never posts INIT_DONE"),
    FaultRow("init-status", "GSP", "status, default 0x65", True, "INIT_DONE carries an error"),
    FaultRow("rpc-result", "GSP", "[function][,result], default any and 0xff", True, "an RPC is answered with an error result"),
    FaultRow("rpc-no-reply", "GSP", "function, default any", True, "an RPC is never answered"),
    FaultRow("rpc-delay", "GSP", "seconds", True, "one reply is late; events go on"),
    FaultRow("rpc-checksum", "GSP", "", True, "a reply has a wrong checksum"),
    FaultRow("rpc-sequence", "GSP", "", True, "a reply repeats a sequence number"),
    FaultRow("rpc-oversize", "GSP", "", True, "a reply claims more pages than the ring has"),
    FaultRow("control-status", "GSP", "[command][,status], default any and 0x56", True, "a control is answered with an error status"),
    FaultRow("unknown-event", "GSP", "", True, "an event without a meaning is posted"),
    FaultRow("gsp-halt", "GSP", "", True, "the firmware dies at its next message"),
    *(FaultRow(*row) for row in GSP_FAULTS),
    *(FaultRow(f"gsp-halt@{place}", "GSP", "", True, f"the firmware dies at {place}") for place in HALT_PLACES),
    FaultRow("all-ones", "BAR0 access", "REGISTER[,read|write][,NTH]", True, "one read gives all ones; one write is lost"),
    FaultRow("zero", "BAR0 access", "REGISTER[,read|write][,NTH]", True, "one read gives zero; one write stores zero"),
    FaultRow("lost-write", "BAR0 access", "REGISTER[,write][,NTH]", True, "one write is lost"),
    FaultRow(
        "no-reply", "BAR0 access", "REGISTER[,read|write][,NTH]", True, "from that access on the register reads all ones and loses writes"
    ),
    FaultRow("device-gone", "BAR0 access", "[REGISTER[,read|write][,NTH]]", True, "from that access on the device is gone"),
)
"""Every fault of the model, by name."""

ACCESS_FAULTS: Final = frozenset({"all-ones", "zero", "lost-write", "no-reply", "device-gone"})
"""Those that act on one access to BAR0."""

_BY_NAME: Final = {row.name: row for row in FAULTS}


class AccessFault:
    """A fault that acts on the NTH access to one BAR0 register in one direction. register None: any; write None: either direction."""

    __slots__ = ("kind", "left", "register", "write")

    def __init__(self, kind: str, argument: str) -> None:
        words = [word.strip() for word in argument.split(",") if word.strip()]
        self.kind = kind
        self.register: int | None = None
        self.write: bool | None = True if kind == "lost-write" else None
        self.left = 1
        if not words and kind != "device-gone":
            raise UnknownFault(f"fault {kind} without a register", expected=_BY_NAME[kind].argument, seen=argument)
        try:
            if words:
                self.register = int(words.pop(0), 0)
            if words and words[0] in ("read", "write"):
                self.write = words.pop(0) == "write"
            if words:
                self.left = int(words.pop(0), 0)
        except ValueError as problem:
            raise UnknownFault(f"argument of fault {kind}", expected=_BY_NAME[kind].argument, seen=argument) from problem
        if words or self.left < 1:
            raise UnknownFault(f"argument of fault {kind}", expected=_BY_NAME[kind].argument, seen=argument)

    def hits(self, register: int, write: bool) -> bool:
        """Whether this access is the one; counts down."""
        if (self.register is not None and self.register != register) or (self.write is not None and self.write != write):
            return False
        self.left -= 1
        return self.left == 0


class ArmedFaults:
    """The armed faults of one GPU (`ports.Faults`), and the log of those that acted."""

    def __init__(self) -> None:
        self._armed: dict[str, list[tuple[str, bool]]] = {}
        self.access: list[AccessFault] = []
        self.acted: list[str] = []

    def arm(self, fault: str) -> str:
        """Arm "NAME" or "NAME:ARGUMENT"; the name is returned. Raises UnknownFault with the nearest names."""
        name, _, argument = fault.partition(":")
        row = _BY_NAME.get(name)
        if row is None:
            from difflib import get_close_matches

            near = ", ".join(get_close_matches(name, _BY_NAME, 3)) or "none near"
            raise UnknownFault(f"no fault named {name!r}", expected=near, seen=name, remedy="nvcore softgpu faults lists them")
        if name in ACCESS_FAULTS:
            self.access.append(AccessFault(name, argument))
        else:
            _check(row, argument)
            self._armed.setdefault(name, []).append((argument, row.once))
        return name

    def disarm(self, name: str | None = None) -> None:
        """Disarm one fault by name, or all."""
        if name is None:
            self._armed.clear()
            self.access.clear()
            return
        self._armed.pop(name, None)
        self.access[:] = [fault for fault in self.access if fault.kind != name]

    def armed(self) -> tuple[str, ...]:
        """Names of the armed faults."""
        return tuple(self._armed) + tuple(fault.kind for fault in self.access)

    def take(self, name: str) -> str | None:
        """The argument of an armed fault ("" without one) and one use less; None when it is not armed."""
        queue = self._armed.get(name)
        if not queue:
            return None
        argument, once = queue[0]
        if once:
            queue.pop(0)
            if not queue:
                del self._armed[name]
        self.acted.append(name)
        return argument

    def peek(self, name: str) -> str | None:
        """The argument without using it up; None when it is not armed."""
        queue = self._armed.get(name)
        return queue[0][0] if queue else None

    def stands(self, name: str, *fitting: str) -> bool:
        """Whether a fault that acts until it is disarmed is armed, with one of these arguments where some are given. It acts where this is
        asked, and is noted the first time."""
        if not any(not fitting or argument in fitting for argument, _ in self._armed.get(name, ())):
            return False
        if name not in self.acted:
            self.acted.append(name)
        return True


def value_of(argument: str, default: int) -> int:
    """A fault's argument as a number, or the default when there is none. Raises UnknownFault."""
    if not argument:
        return default
    try:
        return int(argument, 0)
    except ValueError as problem:
        raise UnknownFault("a fault's argument is not a number", expected="a number such as 0x1234", seen=argument) from problem


def _number(text: str, least: int = 0) -> bool:
    """Whether this is a number that fits a register or a word of a message."""
    try:
        return least <= int(text, 0) <= 0xFFFFFFFF
    except ValueError:
        return False


def _seconds(text: str) -> bool:
    try:
        return 0 <= float(text) < float("inf")
    except ValueError:
        return False


def _fits(form: str, argument: str) -> bool:
    """Whether an argument has the form that a row of the table states, up to its first ", default"."""
    form = form.partition(", default")[0]
    first, comma, second = argument.partition(",")
    if form == "seconds":
        return _seconds(argument)
    if form.startswith("["):  # [number][,number]
        return (not first or _number(first)) and (not comma or _number(second))
    if "|" in form:  # one of these words[,NTH]
        return first in form.partition("[")[0].split("|") and (not comma or _number(second, 1))
    if form == "ADDRESS=VALUE":
        address, equals, value = argument.partition("=")
        return bool(equals) and _number(address) and _number(value)
    if " or " in form:
        return argument in form.split(" or ")
    return _number(argument)


def _check(row: FaultRow, argument: str) -> None:
    """Raise UnknownFault for an argument that the fault could not act on: whoever arms it is told, not who runs into it."""
    if not argument:
        return
    if not row.argument:
        raise UnknownFault(f"fault {row.name} takes no argument", seen=argument)
    if not _fits(row.argument, argument):
        raise UnknownFault(f"argument of fault {row.name}", expected=row.argument, seen=argument)
