"""The firmware's register sequences (CPU sequencer), run for it while it boots or resumes, and only on registers of the list.

Owns nothing; drives the GSP falcon and SEC2. The opener's thread. A command outside the list stops the boot: the firmware is not
trusted with the host's registers.
Source: open-gpu-kernel-modules 570.144 rmgspseq.h, kernel_gsp.c (kgspExecuteSequencerBuffer); operand order as in the header.
"""

from __future__ import annotations

import struct
from typing import Final

from nvcore.hw.register import is_bus_error
from nvcore.hw.registers import boot as breg
from nvcore.hw.registers import falcon as reg
from nvcore.hw.registers import riscv
from nvcore_fw_gsp.boot.errors import BooterFailed, GspDidNotStart, SequencerError
from nvcore_fw_gsp.boot.state import Boot

__all__ = ["ALLOWED", "run_sequence"]

_FALCON_SPAN: Final = 0x4000
ALLOWED: Final = (
    (reg.GSP, reg.GSP + _FALCON_SPAN, "GSP falcon"),
    (reg.SEC2, reg.SEC2 + _FALCON_SPAN, "SEC2 falcon"),
    (0x1180F8, 0x118100, "GSP and SEC2 handshake scratch"),
    (0x000200, 0x000204, "PMC enable"),
    (0x088000, 0x089000, "configuration space mirror"),
    (0x100C10, 0x100C14, "flush page"),
    (0x1FA7C0, 0x1FA840, "memory protection"),
)
"""Registers that a sequence may touch, as [start, end): the two falcons it exists for, their handshake, and what a falcon's start needs."""

_HEAD: Final = struct.Struct("<2I")
_COMMANDS_AT: Final = 0x28
_OPERANDS: Final = (2, 3, 5, 1, 2, 0, 0, 0, 0)
_NAMES: Final = (
    "REG_WRITE",
    "REG_MODIFY",
    "REG_POLL",
    "DELAY_US",
    "REG_STORE",
    "CORE_RESET",
    "CORE_START",
    "CORE_WAIT_FOR_HALT",
    "CORE_RESUME",
)

def run_sequence(boot: Boot, payload: bytes, deadline: float) -> int:
    """Run one sequence; the number of its commands. deadline: when it must have ended, on the boot's clock, whatever it asks for.

    Raises SequencerError, BootTimeout, BooterFailed, GspDidNotStart.
    """
    if len(payload) < _COMMANDS_AT:
        raise _bad("the header is cut off", f"{_COMMANDS_AT} bytes", len(payload), 0)
    size, used = _HEAD.unpack_from(payload)
    there = (len(payload) - _COMMANDS_AT) // 4
    if used > there or (used and used > size):
        raise _bad("it is longer than its buffer", f"at most {min(size, there)} words", used, 0)
    words = struct.unpack_from(f"<{used}I", payload, _COMMANDS_AT)
    saved = [0] * 8
    at = count = 0
    while at < used:
        opcode = words[at]
        if opcode >= len(_OPERANDS):
            raise _bad("unknown command", f"below {len(_OPERANDS)}", opcode, at)
        operands = words[at + 1 : at + 1 + _OPERANDS[opcode]]
        if len(operands) < _OPERANDS[opcode]:
            raise _bad(f"{_NAMES[opcode]} is cut off", f"{_OPERANDS[opcode]} operands", len(operands), at)
        _run(boot, opcode, operands, saved, at, deadline)
        at += 1 + len(operands)
        count += 1
    return count


def _run(boot: Boot, opcode: int, operands: tuple[int, ...], saved: list[int], at: int, deadline: float) -> None:
    bar, left = boot.io.bar, deadline - boot.context.clock.now()
    if left < 0:
        raise _bad("it does not end", "an end within the stage's limit", f"{-left:g} s over it", at)
    match opcode:
        case 0:
            bar.write32(_allowed(operands[0], at), operands[1])
        case 1:
            address, mask, value = operands
            bar.write32(address, _load(boot, _allowed(address, at)) & ~mask & 0xFFFFFFFF | value)
        case 2:
            _poll(boot, operands, at, left)
        case 3:
            if operands[0] / 1e6 > left:
                raise _bad("DELAY_US is too long", f"at most the {left:g} s that the stage has left", f"{operands[0]} µs", at)
            boot.context.clock.sleep(operands[0] / 1e6)
        case 4:
            if operands[1] >= len(saved):
                raise _bad("no such place to store in", f"below {len(saved)}", operands[1], at)
            saved[operands[1]] = _load(boot, _allowed(operands[0], at))
        case 5:
            boot.gsp.reset()
            boot.gsp.prepare_dma()
        case 6:
            boot.gsp.start()
        case 7:
            boot.gsp.wait_halted("the GSP falcon to halt in a register sequence")
        case _:
            _resume(boot)


def _poll(boot: Boot, operands: tuple[int, ...], at: int, left: float) -> None:
    address, mask, value, timeout_us, error = operands
    _allowed(address, at)
    clock = boot.context.clock
    limit = min((timeout_us / 1e6 or 4.0) * boot.context.time_scale, left)
    deadline = clock.now() + limit
    while (seen := _load(boot, address)) & mask != value:
        if clock.now() >= deadline:
            raise _bad(
                "REG_POLL without end", f"{address:#x} & {mask:#x} == {value:#x} within {limit:g} s", f"{seen:#x}, error {error:#x}", at
            )
        clock.sleep(0.0002)


def _resume(boot: Boot) -> None:
    """Put the GSP back into its RISC-V core after an HS ucode ran on its falcon."""
    io, libos = boot.io, boot.libos
    assert libos is not None and boot.bootloader is not None
    boot.gsp.reset()
    address = libos.bus_address(0)
    boot.gsp.set_mailboxes(address & 0xFFFFFFFF, address >> 32)
    boot.sec2.start()
    io.wait(lambda: io.read(breg.SEQUENCER_HANDSHAKE), lambda v: bool(v.resumed), timeout=2.0, what="SEC2 to resume the GSP")
    result = boot.sec2.mailbox0()
    if result:
        raise BooterFailed("SEC2 could not resume the GSP", expected="mailbox 0 = 0", seen=f"{result:#x}")
    io.write(reg.OS(boot.bootloader.app_version), reg.GSP)
    if not io.read(riscv.RISCV_CORE_SWITCH_STATUS, reg.GSP).active:
        raise GspDidNotStart("the GSP's RISC-V core is not active after a resume", expected="active", seen="not active")


def _load(boot: Boot, address: int) -> int:
    raw = boot.io.bar.read32(address)
    if is_bus_error(raw):
        boot.io.refuse("of a register sequence", address, raw)
    return raw


def _allowed(address: int, at: int) -> int:
    if address % 4 == 0:
        for start, end, _ in ALLOWED:
            if start <= address < end:
                return address
    raise _bad("a register outside the list", ", ".join(f"{name} {start:#x}" for start, _, name in ALLOWED), f"{address:#x}", at)


def _bad(what: str, expected: object, seen: object, at: int) -> SequencerError:
    return SequencerError(
        f"the firmware's register sequence cannot be run: {what}", expected=expected, seen=seen, where=f"command word {at}"
    )
