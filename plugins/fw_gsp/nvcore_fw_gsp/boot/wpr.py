"""The protected region as evidence: is a firmware up, and whose is it?

Reads registers, and runs the saved unload where the evidence says that an earlier run of this host left the firmware. The opener's thread.
Source: field case F01 (open-gpu-kernel-modules issues 1104 and 1058); open-gpu-kernel-modules 570.144 kernel_gsp_tu102.c (kgspIsWpr2Up).
"""

from __future__ import annotations

from nvcore.api.firmware import SavedState
from nvcore.hw.register import is_bus_error
from nvcore.hw.registers import fb as fbreg
from nvcore_fw_gsp.boot.io import BootIo

__all__ = ["BACKEND", "boot_id", "is_ours", "saved_state", "wpr2"]

BACKEND = "fw_gsp"
"""Whose saved states count."""

_BOOT_ID = "/proc/sys/kernel/random/boot_id"


def wpr2(io: BootIo) -> tuple[int, int] | None:
    """(start, end) of the protected region as the registers show it, None when there is none. Raises for error patterns."""
    high = io.read(fbreg.WPR2_ADDR_HI)
    if not high.value:
        return None
    return io.read(fbreg.WPR2_ADDR_LO).value << 12, high.value << 12


def wpr2_is_down(io: BootIo) -> bool:
    """Whether there is certainly no protected region; an error pattern proves nothing."""
    value = io.peek(fbreg.WPR2_ADDR_HI)
    return not is_bus_error(value.raw) and not value.value


def boot_id() -> str:
    """Which start of this machine it is; "" where the system does not tell."""
    try:
        with open(_BOOT_ID, encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return ""


def saved_state(chip: str, address: str, version: str, region: tuple[int, int] | None, location: str) -> SavedState:
    """What the next process needs. region: where the firmware's protected region is or will be; None when only the FMC knows."""
    data: dict[str, str | int] = {"chip": chip, "address": address, "location": location, "boot": boot_id()}
    if region is not None:
        data |= {"wpr_start": region[0], "wpr_end": region[1]}
    return SavedState(BACKEND, version, data)


def is_ours(saved: SavedState | None, chip: str, address: str, region: tuple[int, int]) -> bool:
    """Whether an earlier run of ours left this region.

    The evidence is the same GPU, the same start of the machine and the same place. Where the record was written before the FMC chose a
    place, that start of the machine must be known.
    """
    if saved is None or saved.backend != BACKEND:
        return False
    data, machine = saved.data, boot_id()
    if (data.get("chip"), data.get("address"), data.get("boot")) != (chip, address, machine):
        return False
    start, end = data.get("wpr_start"), data.get("wpr_end")
    return (start, end) == region if start is not None else bool(machine)
