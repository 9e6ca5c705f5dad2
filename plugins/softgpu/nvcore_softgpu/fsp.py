"""The security processor of Hopper and later: a mailbox of packets in front of the FMC.

Owns the EMEM port and the two queues. Understands one packet type, hands its payload on, answers. Runs under the device's lock.
Source: gsp-boot.md 5.8; device-model.md 5.6 (open-gpu-kernel-modules 570.144 dev_fsp_pri.h, fsp_nvdm_format.h; Linux 7.3 nova-core fsp.rs).
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Final

from nvcore_softgpu.faults import value_of
from nvcore_softgpu.ports import Faults, Violations
from nvcore_softgpu.registers.file import OGKM, RegisterFile

__all__ = ["Fsp"]

BASE: Final = 0x8F2000
CHANNEL: Final = 1024  # bytes of EMEM that channel 0 has
MCTP: Final = 0xC0000000  # one packet: first and last
VENDOR: Final = 0x10DE << 8 | 0x7E
RESPONSE, COT = 0x15, 0x14
NOT_SUPPORTED, INVALID = 0xA0, 0xA1


class Fsp:
    """The packet interface. chain_of_trust: takes 860 bytes, gives the error code of the answer."""

    def __init__(self, registers: RegisterFile, faults: Faults, violations: Violations, chain_of_trust: Callable[[bytes], int]) -> None:
        self.emem = memoryview(bytearray(CHANNEL))
        self._words = self.emem.cast("I")
        self._position = 0
        self._flags = 0
        self._values = registers.values
        self._faults = faults
        self._violation = violations.violation
        self._chain_of_trust = chain_of_trust
        source = OGKM + " dev_fsp_pri.h"
        handled, stored = registers.handled, registers.stored
        handled(BASE + 0xAC0, "FSP_EMEMC", "position and auto-increment", source, read=self._read_control, write=self._write_control)
        handled(BASE + 0xAC4, "FSP_EMEMD", "data at the position", source, read=self._read_data, write=self._write_data)
        handled(BASE + 0xC00, "FSP_QUEUE_HEAD", "command queue head; a write is the trigger", source, write=self._command)
        stored(BASE + 0xC04, "FSP_QUEUE_TAIL", "last dword of the command", source)
        stored(BASE + 0xC80, "FSP_MSGQ_HEAD", "message queue head", source)
        stored(BASE + 0xC84, "FSP_MSGQ_TAIL", "last dword of the message", source)
        stored(0x8F0320, "FSP_SCRATCH", "progress words to print when the processor does not answer", source, count=4)
        registers.ports_in[BASE + 0xAC4] = self._write_many

    def _write_control(self, offset: int, value: int) -> None:
        self._position = (value & 0xFFFC) >> 2
        self._flags = value & 0xFF000000

    def _read_control(self, offset: int) -> int:
        return self._flags | self._position << 2

    def _write_data(self, offset: int, value: int) -> None:
        if self._position < CHANNEL // 4:
            self._words[self._position] = value
        else:
            self._violation("emem-outside", f"write at {self._position * 4:#x}")
        if self._flags & 0x01000000:
            self._position += 1

    def _read_data(self, offset: int) -> int:
        value = self._words[self._position] if self._position < CHANNEL // 4 else 0
        if self._flags & 0x02000000:
            self._position += 1
        return value

    def _write_many(self, data: memoryview) -> None:
        for value in data.cast("I"):
            self._write_data(0, value)

    def _command(self, offset: int, value: int) -> None:
        """The head was written: the packet in EMEM is complete."""
        values = self._values
        tail = values[BASE + 0xC04]
        values[offset] = value
        if value == tail and not tail:
            return  # queues being cleared
        if values[BASE + 0xC80] != values[BASE + 0xC84]:
            self._violation("fsp-unread-answer", "a command while the last answer was not taken")
        length = tail - value + 4
        values[offset] = tail  # consumed
        if self._faults.take("fsp-silent") is not None:
            return
        if not 8 <= length <= CHANNEL or value:
            self._violation("fsp-packet", f"head {value:#x}, tail {tail:#x}")
            return
        packet = bytes(self.emem[:length])
        mctp, nvdm = struct.unpack_from("<II", packet)
        kind = nvdm >> 24
        if mctp >> 30 != 3 or nvdm & 0xFFFF7F != VENDOR:
            self._violation("fsp-packet", f"headers {mctp:#x} {nvdm:#x}")
            return
        injected = self._faults.take("fsp-error")
        if injected is not None:
            error = value_of(injected, INVALID)
        elif kind != COT:
            error = NOT_SUPPORTED
        elif length != 868:
            self._violation("fsp-packet", f"chain of trust of {length} bytes")
            error = INVALID
        else:
            error = self._chain_of_trust(packet[8:])
        answer = struct.pack("<IIIII", MCTP, VENDOR | RESPONSE << 24, 0, kind, error)
        self.emem[: len(answer)] = answer
        values[BASE + 0xC80] = 0
        values[BASE + 0xC84] = len(answer) - 4

    def power_on(self) -> None:
        """Empty queues."""
        self.emem[:] = bytes(CHANNEL)
        for offset in (0xC00, 0xC04, 0xC80, 0xC84):
            self._values[BASE + offset] = 0
