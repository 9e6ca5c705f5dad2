"""Family "inventory": the firmware's description of the GPU, as the core's record.

Owns nothing; reads the static information of the boot and asks a few controls. Any thread that may sleep.
Source: open-gpu-kernel-modules gsp_static_config.h, ctrl2080fifo.h, ctrl2080internal.h at the version's tag; nouveau rm/r535/{gsp,fifo}.c.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from nvcore.api.errors import FormatError
from nvcore.api.inventory import Engine, Inventory, MemoryRegion, Range, VgpuSupport
from nvcore.api.marks import may_sleep
from nvcore.hw.chips import chip_row
from nvcore_fw_gsp.abi.layout import View
from nvcore_fw_gsp.queue.errors import CallRefused

if TYPE_CHECKING:
    from nvcore_fw_gsp.session.gsp import GspSession

__all__ = ["InventoryFamily"]

_NONE: Final = 0xFFFFFFFF
_ENGINE_TYPE, _RUNLIST = 2, 3
_MAX_PAGES: Final = 16
FIRST_CHANNEL: Final = 1
"""Id 0 stays unused on every version: newer firmware reserves one id, and one rule for all keeps plans portable."""


class InventoryFamily:
    """See `nvcore.api.families.InventoryFamily`."""

    name = "inventory"
    version = 1

    def __init__(self, session: GspSession) -> None:
        self._session = session

    @may_sleep
    def read(self) -> Inventory:
        """The inventory, complete."""
        session = self._session
        info = session.static_info
        interrupts = self._interrupts()
        row = chip_row(session.boot.context.chip.name)
        gfid_named = session.rm.abi.struct("rpc_rc_triggered_v17_02").has("gfid")
        segment = self._vmmu_segment()
        engines = self._engines(interrupts)
        session.runlist_of = {engine.name: engine.runlist for engine in engines}
        firmware = interrupts.get(session.manifest.intr_gsp_engine, (None, None))[0]
        functions = int(info["sriovCaps.totalVFs"])
        return Inventory(
            name=_text(info["gpuNameString"]) or row.name,
            uuid=_uuid(info),
            memory_size=session.boot.memory_size,
            regions=self._regions(info, session.boot.memory_size),
            engines=engines,
            first_channel=FIRST_CHANNEL,
            channels=self._channels({engine.runlist for engine in engines}),
            vmmu_segment=segment,
            page_tables=row.page_tables,
            bar1_size=session.boot.device.bars[1].size,
            firmware_vector=firmware,
            heads=0,
            vgpu=VgpuSupport(session.boot.vgpu_host, functions, session.boot.no_vgpu),
            firmware=session.rm.abi.version,
            capabilities=frozenset({"channel-faults", *(("fault-names-function",) if gfid_named else ()), *(("vmmu",) if segment else ())}),
        )

    @may_sleep
    def bar1_directory(self) -> int:
        """VRAM address of the page directory behind BAR1."""
        return int(self._session.static_info["bar1PdeBase"])

    def _interrupts(self) -> dict[int, tuple[int | None, int | None]]:
        """Engine index of the interrupt table → (stall vector, non-stall vector)."""
        rm = self._session.rm
        layout = rm.abi.struct("NV2080_CTRL_INTERNAL_INTR_GET_KERNEL_TABLE_PARAMS")
        reply = layout.unpack(rm.internal("NV2080_CTRL_CMD_INTERNAL_INTR_GET_KERNEL_TABLE", layout.pack(), "the interrupt table"))
        length, room = int(reply["tableLen"]), layout.field("table").dims[0]
        if length > room:
            raise FormatError("the interrupt table is longer than its space", expected=f"at most {room}", seen=length)
        found: dict[int, tuple[int | None, int | None]] = {}
        for entry in reply["table"][:length]:
            stall, nonstall = int(entry["vectorStall"]), int(entry["vectorNonStall"])
            found[int(entry["engineIdx"])] = (None if stall == _NONE else stall, None if nonstall == _NONE else nonstall)
        return found

    def _engines(self, interrupts: dict[int, tuple[int | None, int | None]]) -> tuple[Engine, ...]:
        rm = self._session.rm
        layout = rm.abi.struct("NV2080_CTRL_FIFO_GET_DEVICE_INFO_TABLE_PARAMS")
        room = layout.field("entries").dims[0]
        engines: list[Engine] = []
        base = 0
        for _ in range(_MAX_PAGES):
            page = layout.unpack(
                rm.internal("NV2080_CTRL_CMD_FIFO_GET_DEVICE_INFO_TABLE", layout.pack(baseIndex=base), "the table of engines")
            )
            number = int(page["numEntries"])
            if number > room:
                raise FormatError("the table of engines is longer than its space", expected=f"at most {room}", seen=number)
            for entry in page["entries"][:number]:
                data = entry["engineData"]
                engine = self._session.engines.by_rm.get(data[_ENGINE_TYPE])
                if engine is None or engine.kind == "software":
                    continue  # nothing that a channel could be made on
                stall, nonstall = interrupts.get(_NONE if engine.interrupt is None else engine.interrupt, (None, None))
                engines.append(Engine(engine.name, engine.kind, engine.instance, data[_RUNLIST], stall, nonstall))
            if not page["bMore"] or not number:
                break
            base += number
        return tuple(engines)

    def _channels(self, runlists: set[int]) -> int:
        """Channel ids per runlist: the least of all."""
        rm = self._session.rm
        layout = rm.abi.struct("NV2080_CTRL_INTERNAL_FIFO_GET_NUM_CHANNELS_PARAMS")
        least: int | None = None
        for runlist in sorted(runlists):
            reply = rm.internal("NV2080_CTRL_CMD_INTERNAL_FIFO_GET_NUM_CHANNELS", layout.pack(runlistId=runlist), "the number of channels")
            number = int(layout.get(reply, "numChannels"))
            least = number if least is None else min(least, number)
        return least or 0

    def _vmmu_segment(self) -> int | None:
        rm = self._session.rm
        layout = rm.abi.struct("NV2080_CTRL_GPU_GET_VMMU_SEGMENT_SIZE_PARAMS")
        try:
            reply = rm.internal("NV2080_CTRL_CMD_GPU_GET_VMMU_SEGMENT_SIZE", layout.pack(), "the VMMU's segment size")
        except CallRefused:
            return None  # no VMMU on this GPU
        return int(layout.get(reply, "vmmuSegmentSize")) or None

    def _regions(self, info: View, total: int) -> tuple[MemoryRegion, ...]:
        """All of VRAM: what the firmware describes, and the gaps between, which are its own."""
        number = int(info["fbRegionInfoParams.numFBRegions"])
        entries = info["fbRegionInfoParams.fbRegion"]
        if number > len(entries):
            raise FormatError("more memory regions than there is space for", expected=f"at most {len(entries)}", seen=number)
        told: list[MemoryRegion] = []
        for entry in entries[:number]:
            base, limit = int(entry["base"]), int(entry["limit"])
            if limit < base:
                continue
            usable = not entry["reserved"] and not entry["bProtected"] and bool(entry["supportCompressed"]) and bool(entry["supportISO"])
            told.append(MemoryRegion(Range(base, limit + 1 - base), usable, "" if usable else "firmware"))
        told.sort(key=lambda region: region.range.start)
        whole: list[MemoryRegion] = []
        at = 0
        for region in told:
            if region.range.start < at:
                raise FormatError("memory regions overlap", expected=f"from {at:#x} on", seen=f"{region.range.start:#x}")
            if region.range.start > at:
                whole.append(MemoryRegion(Range(at, region.range.start - at), False, "firmware"))
            whole.append(region)
            at = region.range.end
        if at > total:
            raise FormatError("a memory region ends beyond the memory", expected=f"at most {total:#x}", seen=f"{at:#x}")
        if at < total:
            whole.append(MemoryRegion(Range(at, total - at), False, "firmware"))
        return tuple(whole)


def _text(raw: bytes) -> str:
    return raw.split(b"\0", 1)[0].decode("utf-8", "backslashreplace")


def _uuid(info: View) -> str:
    """ "GPU-…" from the static information, which has it as text or as 16 bytes."""
    length, data = int(info["gidInfo.length"]), bytes(info["gidInfo.data"])
    text = _text(data[: min(length, len(data))] if length else data)
    if text.startswith("GPU-") and len(text) >= 40:
        return text[:40]
    raw = data[:16].hex()
    return f"GPU-{raw[:8]}-{raw[8:12]}-{raw[12:16]}-{raw[16:20]}-{raw[20:]}"
