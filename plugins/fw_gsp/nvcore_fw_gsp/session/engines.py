"""Engine numbers of a version: types, interrupt indices, names.

Data read from the version's ABI; holds no device. Any thread.
Source: open-gpu-kernel-modules gpu_engine_type.h, engine_idx.h, ctrl2080/cl2080_notification.h at the version's tag.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from nvcore.api.inventory import EngineKind
from nvcore_fw_gsp.abi import Abi
from nvcore_fw_gsp.abi.manifests import Manifest

__all__ = ["EngineNumbers", "EngineType"]


class EngineType(NamedTuple):
    """One engine: its NV2080 type and its index in the interrupt table (None: it has none)."""

    name: str
    kind: EngineKind
    instance: int
    nv2080: int
    interrupt: int | None


class _Row(NamedTuple):
    name: str
    kind: EngineKind
    number: int
    rm: int
    shifted: bool
    nv2080: int
    interrupt: str


_ROWS: Final = (
    _Row("GR", "graphics", 8, 0x01, False, 0x01, "MC_ENGINE_IDX_GR"),
    _Row("COPY", "copy", 10, 0x09, False, 0x09, "MC_ENGINE_IDX_CE"),
    _Row("NVDEC", "nvdec", 8, 0x1D, False, 0x13, "MC_ENGINE_IDX_NVDEC"),
    _Row("NVENC", "nvenc", 3, 0x25, False, 0x1B, "MC_ENGINE_IDX_NVENC"),
    _Row("SW", "software", 1, 0x2C, True, 0x22, ""),
    _Row("SEC2", "sec2", 1, 0x30, True, 0x26, "MC_ENGINE_IDX_SEC2"),
    _Row("NVJPG", "nvjpg", 8, 0x35, True, 0x2B, "MC_ENGINE_IDX_NVJPEG"),
    _Row("OFA", "ofa", 1, 0x3D, True, 0x33, "MC_ENGINE_IDX_OFA"),
)
_SINGLE: Final = ("SW", "SEC2")


class EngineNumbers:
    """Lookup tables of one version: by RM engine type (device table) and by NV2080 type (events, channels)."""

    __slots__ = ("by_name", "by_nv2080", "by_rm")

    def __init__(self, abi: Abi, manifest: Manifest) -> None:
        self.by_rm: dict[int, EngineType] = {}
        for row in _ROWS:
            shift = manifest.rm_engine_shift if row.shifted else 0
            for instance in range(row.number):
                name = row.name if row.name in _SINGLE else f"{row.name}{instance}"
                first = f"{row.interrupt}{'' if row.interrupt.endswith('SEC2') else '0'}"
                index = None
                if row.interrupt:
                    constant = first if abi.has_value(first) else row.interrupt
                    index = abi.enum(constant) + instance if abi.has_value(constant) else None
                self.by_rm[row.rm + shift + instance] = EngineType(name, row.kind, instance, row.nv2080 + instance, index)
        self.by_nv2080 = {engine.nv2080: engine for engine in self.by_rm.values()}
        self.by_name = {engine.name: engine for engine in self.by_rm.values()}
