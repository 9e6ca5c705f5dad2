"""NVIDIA functions on the PCI bus, as sysfs shows them. Reads only; needs no plugin and no right; any thread.

Source: Linux Documentation/PCI/sysfs-pci.rst.
"""

from __future__ import annotations

import os

# Where Linux lists PCI functions.
_SYSFS = "/sys/bus/pci/devices"


def _read(path: str) -> str | None:
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            return file.read().strip()
    except OSError:
        return None


def scan(root: str = _SYSFS) -> list[dict[str, object]]:
    """Every NVIDIA display function: address, ids, driver in charge, power state, VFs. What cannot be read is None; no bus is an empty
    list."""
    try:
        addresses = sorted(os.listdir(root))
    except OSError:
        return []
    rows: list[dict[str, object]] = []
    for address in addresses:
        home = os.path.join(root, address)
        if _read(f"{home}/vendor") != "0x10de" or (_read(f"{home}/class") or "")[:4] != "0x03":  # NVIDIA; VGA and 3D controllers
            continue
        driver = os.path.basename(os.path.realpath(f"{home}/driver")) if os.path.exists(f"{home}/driver") else None
        device, total = _read(f"{home}/device"), _read(f"{home}/sriov_totalvfs")
        row = {"address": address, "device_id": device and device.removeprefix("0x"), "driver": driver}
        functions = int(total) if total and total.isdecimal() else None
        rows.append({**row, "power_state": _read(f"{home}/power_state"), "functions": functions, "source": f"pci:{address}"})
    return rows
