"""Family "diagnostics": what can be told about a firmware, alive or dead. Reads memory and registers only; asks the firmware nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from nvcore.api.errors import NvcoreError
from nvcore.api.marks import may_sleep
from nvcore.hw.chips import BOOT_0, BOOT_42
from nvcore.hw.register import Register
from nvcore.hw.registers import boot as breg
from nvcore.hw.registers import falcon as reg
from nvcore.hw.registers import fb as fbreg
from nvcore.hw.registers import riscv
from nvcore_fw_gsp.boot.arguments import log_progress
from nvcore_fw_gsp.boot.chips import BootFlow

if TYPE_CHECKING:
    from nvcore_fw_gsp.session.gsp import GspSession

__all__ = ["DiagnosticsFamily"]

_COMMON: Final[tuple[tuple[type[Register], int, str], ...]] = (
    (BOOT_0, 0, ""),
    (BOOT_42, 0, ""),
    (fbreg.WPR2_ADDR_LO, 0, ""),
    (fbreg.WPR2_ADDR_HI, 0, ""),
    (reg.MAILBOX0, reg.GSP, "GSP."),
    (reg.MAILBOX1, reg.GSP, "GSP."),
    (reg.CPUCTL, reg.GSP, "GSP."),
    (reg.HWCFG2, reg.GSP, "GSP."),
    (reg.IRQSTAT, reg.GSP, "GSP."),
)
_BOOTER: Final[tuple[tuple[type[Register], int, str], ...]] = (
    (riscv.RISCV_CORE_SWITCH_STATUS, reg.GSP, "GSP."),
    (reg.MAILBOX0, reg.SEC2, "SEC2."),
    (reg.MAILBOX1, reg.SEC2, "SEC2."),
    (reg.CPUCTL, reg.SEC2, "SEC2."),
    (breg.GFW_PROGRESS, 0, ""),
    (breg.FWSEC_SB_SCRATCH, 0, ""),
)
_FSP: Final[tuple[tuple[type[Register], int, str], ...]] = ((riscv.RISCV_CPUCTL, reg.GSP, "GSP."), (breg.FSP_BOOT_COMPLETE, 0, ""))


class DiagnosticsFamily:
    """See `nvcore.api.families.DiagnosticsFamily`."""

    name = "diagnostics"
    version = 1

    def __init__(self, session: GspSession) -> None:
        self._session = session

    @may_sleep
    def logs(self) -> Mapping[str, bytes]:
        """Raw log regions by name, as far as written; an empty value = never written."""
        found: dict[str, bytes] = {}
        for name, buffer in self._session.boot.logs.items():
            try:
                put = log_progress(buffer)
                found[name] = bytes(buffer.view[: min(buffer.size, put * 8)]) if put else b""
            except ValueError:  # the buffer was freed by the unload
                found[name] = b""
        return found

    @may_sleep
    def queues(self) -> Mapping[str, object]:
        """Both queues: pointers, counters, the last messages."""
        port = self._session.port
        commands, answers = port.sender.pointers, port.receiver.pointers
        return {
            "command": {"write": commands[0], "read": commands[1], "records": port.sender.sent},
            "status": {"write": answers[0], "read": answers[1], "linked": port.receiver.linked},
            "late_answers": port.late,
            "unknown_answers": port.unknown,
            "unknown_events": self._session.desk.unknown,
            "dead": port.dead,
            "last": [{"kind": kind, "number": number, "bytes": size} for kind, number, size in port.history],
        }

    @may_sleep
    def registers(self) -> Mapping[str, int]:
        """The registers worth keeping, by name; what cannot be read is left out."""
        boot = self._session.boot
        match boot.chip.flow:
            case BootFlow.BOOTER_PIO:
                wanted = _COMMON + _BOOTER
            case BootFlow.FSP:
                wanted = _COMMON + _FSP
        found: dict[str, int] = {}
        for register, base, unit in wanted:
            try:
                found[f"{unit}{register.__name__}"] = register.read(boot.io.bar, base).raw
            except NvcoreError:
                break  # the device is gone
        return found
