"""Entry point of family "operator": configuration, the control interface, the status panel, the doctor's checks. Imports on use."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import Any

import attrs

from nvcore.api import hookimpl
from nvcore.api.errors import NvcoreError
from nvcore.api.offers import CheckOffer, ConfigSection, Finding, HostInfo, InterfaceOffer, PanelOffer
from nvcore_vfio.plugin import driver

__all__ = ["VfioConfig", "nvcore_config_sections", "nvcore_control_interfaces", "nvcore_doctor_checks", "nvcore_status_panels"]

_COLUMNS = (
    ("name", "vGPU", "left"),
    ("place", "GPU/VF", "left"),
    ("type", "TYPE", "left"),
    ("vm", "VM", "left"),
    ("state", "STATE", "left"),
    ("framebuffer_bytes", "FB", "right"),
    ("bring_up", "BRING-UP", "left"),
    ("started_at", "UP", "right"),
    ("reason", "REASON", "left"),
)


def _not_negative(record: object, field: object, value: int) -> None:
    if value < 0:
        raise ValueError(f"vgpus_per_gpu of 0 or more, not {value}: 0 is as many as fit")


@attrs.frozen
class VfioConfig:
    """`[plugins.vfio]`. vgpus_per_gpu: how many vGPUs memory is set aside for on each GPU; 0 = as many as fit."""

    vgpus_per_gpu: int = attrs.field(default=0, validator=_not_negative)


@hookimpl
def nvcore_config_sections(host: HostInfo) -> Iterable[ConfigSection]:
    """The section `[plugins.vfio]`."""
    return [ConfigSection("vfio", "vGPUs", VfioConfig)]


@hookimpl
def nvcore_control_interfaces(host: HostInfo) -> Iterable[InterfaceOffer]:
    """`io.nvcore.Vgpu`."""
    from nvcore_vfio.control import VgpuHandler

    with open(os.path.join(os.path.dirname(__file__), "data", "io.nvcore.Vgpu.varlink"), encoding="utf-8") as file:
        text = file.read()
    handler = VgpuHandler(driver(host))
    observe, control = frozenset({"List", "Types"}), frozenset({"Create", "Start", "Stop", "Destroy"})
    return [InterfaceOffer("io.nvcore.Vgpu", "vGPUs", text, observe, control, handler)]


@hookimpl
def nvcore_status_panels(host: HostInfo) -> Iterable[PanelOffer]:
    """The table of vGPUs."""

    def snapshot() -> list[dict[str, Any]]:
        rows = driver(host).rows()
        for row in rows:
            row["place"] = f"{row['gpu']}/{row['function']}"
        return rows

    return [PanelOffer("vgpus", "vGPUs", "nvcore.vgpu/1", _COLUMNS, 20, snapshot)]  # type: ignore[arg-type]


@hookimpl
def nvcore_doctor_checks(host: HostInfo) -> Iterable[CheckOffer]:
    """Whether our list and the firmware's agree, and whether every record can be read."""

    def check() -> Iterator[Finding]:
        from nvcore_vfio.errors import NoCapacity, NoFirmware, UnusableRecord

        up = driver(host).managers
        for address, names, damaged, (why, remedy) in driver(host).shelf.problems(up):
            if names:
                remedy = f"{remedy}; nvcore vgpu destroy NAME forgets one that is not wanted any more"
                yield Finding("warning", f"{address}: down: {', '.join(names)}: {why}", NoFirmware.code, remedy)
            for problem in damaged:
                yield Finding("warning", f"{address}: {problem.what} at {problem.where}", problem.code, problem.remedy)
        for address, manager in sorted(up.items()):
            for problem in manager.damaged:
                yield Finding("warning", f"{address}: {problem.what} at {problem.where}", problem.code, problem.remedy)
            for name, flaw in manager.flaws().items():
                yield Finding("warning", f"{address}: {name} cannot be started: {flaw}", UnusableRecord.code, UnusableRecord.usual_remedy)
            for number, why in sorted(manager.pool.kept.items()):
                yield Finding("warning", f"{address}: VF {number} is {why}", NoCapacity.code, f"nvcore gpus reset {address}")
            try:
                theirs = set(manager.firmware_tasks())
            except NvcoreError as error:
                yield Finding("warning", f"{address}: the firmware's vGPUs cannot be counted: {error.what}", error.code, error.remedy)
                continue
            ours = manager.functions_running()
            if ours == theirs:
                yield Finding("ok", f"{address}: {len(ours)} vGPU{'' if len(ours) == 1 else 's'}, here and in the firmware")
            else:
                text = f"{address}: vGPUs on functions {sorted(ours)} here, {sorted(theirs)} in the firmware"
                yield Finding("error", text, "NVC-3008", f"nvcore gpus reset {address}")

    return [CheckOffer("vgpus", "vGPUs agree with the firmware", check)]
