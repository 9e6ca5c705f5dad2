"""NVIDIA functions on the PCI bus, as sysfs shows them. Reads only; needs no plugin and no right; any thread.

Source: Linux Documentation/PCI/sysfs-pci.rst.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["SYSFS", "scan"]

SYSFS = "/sys/bus/pci/devices"
_NVIDIA = 0x10DE
_DISPLAY = 0x03  # base class of VGA and 3D controllers


def _read(path: str) -> str | None:
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            return file.read().strip()
    except OSError:
        return None


def _number(text: str | None) -> int | None:
    try:
        return int(text, 16) if text else None
    except ValueError:
        return None


def scan(root: str = SYSFS) -> list[dict[str, Any]]:
    """Every NVIDIA display function: address, ids, driver in charge, power state, VFs. What cannot be read is None; no bus is an empty
    list."""
    try:
        addresses = sorted(os.listdir(root))
    except OSError:
        return []
    rows = []
    for address in addresses:
        home = os.path.join(root, address)
        vendor, kind = _number(_read(f"{home}/vendor")), _number(_read(f"{home}/class"))
        if vendor != _NVIDIA or kind is None or kind >> 16 != _DISPLAY:
            continue
        driver = os.path.basename(os.path.realpath(f"{home}/driver")) if os.path.exists(f"{home}/driver") else None
        device = _number(_read(f"{home}/device"))
        total = _read(f"{home}/sriov_totalvfs")
        row = {"address": address, "device_id": f"{device:04x}" if device is not None else None, "driver": driver}
        functions = int(total) if total and total.isdecimal() else None
        rows.append({**row, "power_state": _read(f"{home}/power_state"), "functions": functions, "source": f"pci:{address}"})
    return rows
