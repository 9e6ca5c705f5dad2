"""Family "vgpu": the firmware's side of vGPUs, on firmware 570.144.

Owns one host RPC channel per vGPU, the lease on its management heap, and the list of what has still to be asked before the firmware has
forgotten the vGPU: what was refused stays on it, and is asked again by the next `shutdown`, `cleanup`, or end of the tenant. Life-cycle
thread, may sleep. Knows no guest.
Source: open-gpu-kernel-modules 570.144 ctrl2080vgpumgrinternal.h, kernel_vgpu_mgr.c; "[RFC] nvidia-vgpu" patches of 2025. Heap size: a
convention for types that no public table gives one for.
"""

from __future__ import annotations

import struct
import uuid as uuids
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Final, cast

from nvcore.api.errors import ContractError, NvcoreError, UsageError
from nvcore.api.events import VgpuPluginEvent
from nvcore.api.families import Tenant
from nvcore.api.families.vgpu import VgpuRef, VgpuSpec, VgpuTypeSpec
from nvcore.api.grant import Lease
from nvcore.api.marks import may_sleep
from nvcore_fw_gsp.families.host_rpc import CHANNEL_SIZE, HEAP_PARTS, HostRpc
from nvcore_fw_gsp.queue.errors import CallRefused, CallTimeout, FirmwareIsDead, TaskGone
from nvcore_fw_gsp.session.tenant import SUBDEVICE, GspTenant

if TYPE_CHECKING:
    from nvcore_fw_gsp.session.gsp import GspSession

__all__ = ["GspVgpu", "VgpuFamily"]

HEAP_SIZE: Final = 48 << 20
_PREFIX: Final = "NV2080_CTRL_CMD_VGPU_MGR_INTERNAL_"
_PARAMS: Final = "NV2080_CTRL_VGPU_MGR_INTERNAL_"
_NEGOTIATE, _CONFIGURE, _RESET, _BUS_MASTER = 1, 2, 3, 13
_CONFIG: Final = struct.Struct("<16s12IQ3x5B4xH2xII16x")
"""uuid; dbdf, the VM's, instance id, type, pid, swizzle id, channels, plugin channels, VMM capabilities, migration feature, hypervisor,
CPU; page size; five switches from 75 on; placement id at 84; reserved; channel usage threshold. 112 bytes."""

_KVM, _X86_64, _PAGE_SIZE, _MIGRATION = 4, 2, 4096, 0x4000
_SHUTDOWN: Final = "SHUTDOWN_GSP_VGPU_PLUGIN_TASK"
_CLEANUP: Final = "VGPU_PLUGIN_CLEANUP"
_WAY_DOWN: Final = {
    _SHUTDOWN: "the end of the task",
    _CLEANUP: "the cleanup after the task",
    "CLEAR_GUEST_VM_INFO": "forgetting the guest",
    "FREE_STATES": "freeing the task's states",
}
"""Controls that take a vGPU down, in their order."""

_OBJECT_NOT_FOUND: Final = 0x57
_EXTRA: Final = {
    "gsp_heap_size": "gspHeapSize",
    "cuda": "cudaEnabled",
    "ecc": "eccSupported",
    "multi_vgpu": "multiVgpuSupported",
    "max_pixels": "maxPixels",
    "frl_enabled": "frlEnable",
    "gpu_direct": "gpuDirectSupported",
    "nvlink_p2p": "nvlinkP2PSupported",
}


class GspVgpu:
    """A vGPU in the firmware. left: controls to its end, none once the firmware has forgotten it; silent: its task has left a message
    unanswered and gets no further one."""

    __slots__ = ("function", "heap", "left", "owner", "rpc", "silent", "tenant")

    def __init__(self, owner: GspTenant, function: int, heap: Lease, rpc: HostRpc) -> None:
        self.owner, self.function, self.heap, self.rpc = owner, function, heap, rpc
        self.tenant: Tenant = owner
        self.left, self.silent = list(_WAY_DOWN), False


class VgpuFamily:
    """See `nvcore.api.families.vgpu`."""

    name = "vgpu"
    version = 1

    def __init__(self, session: GspSession) -> None:
        self._session = session

    @may_sleep
    def heap_size(self) -> int:
        """Bytes of VRAM that each vGPU's task needs beside its framebuffer."""
        return HEAP_SIZE

    @may_sleep
    def upload_types(self, types: Sequence[VgpuTypeSpec]) -> None:
        """Replace the firmware's table of types. Raises UsageError for too many and for an unknown key of `extra`."""
        rm = self._session.rm
        layout = rm.abi.struct(_PARAMS + "PGPU_ADD_VGPU_TYPE_PARAMS")
        room = layout.field("vgpuInfo").dims[0]
        if len(types) > room:
            raise UsageError("more vGPU types than the firmware's table takes", expected=f"at most {room}", seen=len(types))
        table = layout.pack(discardVgpuTypes=True, vgpuInfoCount=len(types))
        for index, kind in enumerate(types):
            layout.put(table, f"vgpuInfo[{index}]", self._type(kind))
        rm.internal(_PREFIX + "PGPU_ADD_VGPU_TYPE", table, f"the upload of {len(types)} vGPU types")

    def _type(self, kind: VgpuTypeSpec) -> bytearray:
        unknown = [key for key in kind.extra if key not in _EXTRA]
        if unknown:
            raise UsageError(
                f"vGPU type {kind.name} has settings that this firmware does not know", expected=", ".join(_EXTRA), seen=", ".join(unknown)
            )
        values: dict[str, object] = {
            "vgpuType": kind.type_id,
            "vgpuName": kind.name.encode()[:31],
            "vgpuClass": kind.vgpu_class.encode()[:31],
            "maxInstance": kind.max_instances,
            "numHeads": kind.heads,
            "maxResolutionX": kind.max_width,
            "maxResolutionY": kind.max_height,
            "frlConfig": kind.frame_rate,
            "vdevId": kind.device_id << 16 | kind.subsystem_id,
            "profileSize": kind.profile_size,
            "fbLength": kind.framebuffer,
            "gspHeapSize": HEAP_SIZE,
            "fbReservation": kind.reserved,
            "mappableVideoSize": kind.mappable,
            "encoderCapacity": kind.encoder_capacity,
            "bar1Length": kind.bar1_size >> 20,
        }
        values |= {_EXTRA[key]: value for key, value in kind.extra.items()}
        return self._session.rm.abi.struct("NVA081_CTRL_VGPU_INFO").pack(values)

    @may_sleep
    def bootload(self, tenant: Tenant, spec: VgpuSpec, heap: Lease) -> GspVgpu:
        """Start the firmware's task for this vGPU and wait until it says that it runs.

        Raises UsageError for a heap that is too small, CallRefused, CallTimeout, TaskGone; the task is then ended as far as it had come.
        """
        session, owner = self._session, cast(GspTenant, tenant)
        owner.check()
        if spec.heap.size <= CHANNEL_SIZE or not spec.framebuffer:
            raise UsageError(
                "a vGPU needs a heap and memory", expected=f"a heap above {CHANNEL_SIZE:#x} bytes", seen=f"{spec.heap.size:#x}"
            )
        boot, gone = session.boot, session.desk.gone
        gone.pop(spec.function, None)
        rpc = HostRpc(heap, boot.io.bar, boot.context.clock, spec.function, session.port.raise_if_dead, gone.get, boot.context.time_scale)
        rpc.clear()
        params = self._bootload_params(spec)
        what = f"the start of the task of function {spec.function}"
        vgpu = GspVgpu(owner, spec.function, heap, rpc)
        end = owner.tasks[vgpu] = partial(self.cleanup, vgpu)  # before it is asked: an answer that is late leaves a task that runs
        session.book.alive["vgpu"] += 1
        try:
            session.rm.control(owner.client, SUBDEVICE, session.rm.abi.enum(_PREFIX + "BOOTLOAD_GSP_VGPU_PLUGIN_TASK"), params, what)
            if gone.get(spec.function) == "ended":  # told before the start was answered: it is the end of an earlier task
                gone.pop(spec.function, None)
            rpc.announce()
            rpc.wait_bootloaded()
        except CallRefused:
            self._forget(vgpu)
            raise
        except BaseException:
            session.try_free(end, what)
            raise
        return vgpu

    def _bootload_params(self, spec: VgpuSpec) -> bytearray:
        session = self._session
        layout = session.rm.abi.struct(_PARAMS + "BOOTLOAD_GSP_VGPU_PLUGIN_TASK_PARAMS")
        channels = [0] * layout.field("chidOffset").dims[0]
        for name in session.runlists():
            channels[session.engines.by_name[name].nv2080] = spec.channels.start
        base = spec.heap.start
        values: dict[str, object] = {
            "dbdf": routing_id(spec.address),
            "gfid": spec.function,
            "numChannels": spec.channels.size,
            "numPluginChannels": spec.plugin_channels,
            "chidOffset": channels,
            "numGuestFbSegments": len(spec.framebuffer),
            "guestFbPhysAddrList": [piece.start for piece in spec.framebuffer],
            "guestFbLengthList": [piece.size for piece in spec.framebuffer],
            "pluginHeapMemoryPhysAddr": base,
            "pluginHeapMemoryLength": spec.heap.size,
        }
        for member, part in (("initTaskLogBuff", "init-log"), ("vgpuTaskLogBuff", "task-log"), ("kernelLogBuff", "kernel-log")):
            place = HEAP_PARTS[part]
            values |= {f"{member}Offset": base + place.offset, f"{member}Size": place.size}  # "offsets" that are addresses
        return layout.pack(values)

    @may_sleep
    def configure(self, vgpu: VgpuRef, spec: VgpuSpec) -> str:
        """Negotiate the protocol and hand over the settings; the negotiated protocol as a label."""
        target = _running(vgpu)
        answer = self._send(target, _NEGOTIATE, b"", "the negotiation of the protocol")
        _cpu, negotiated = struct.unpack_from("<II", answer)
        address = routing_id(spec.address)
        body = _CONFIG.pack(
            uuids.UUID(spec.uuid).bytes,
            address,
            0,
            target.owner.client,
            spec.type_id,
            0,
            0,
            spec.channels.size,
            spec.plugin_channels,
            0,
            _MIGRATION,
            _KVM,
            _X86_64,
            _PAGE_SIZE,
            0,
            0,
            0,
            0,
            0,
            0,
            0,
            0,
        )
        self._send(target, _CONFIGURE, body, "the configuration")
        return f"host-rpc {negotiated:#x}"

    @may_sleep
    def set_bus_master(self, vgpu: VgpuRef, enabled: bool) -> None:
        """Tell the task that the guest's function may or may not do DMA."""
        self._send(_running(vgpu), _BUS_MASTER, bytes([int(enabled), 0]), "the bus-master state")

    @may_sleep
    def reset(self, vgpu: VgpuRef) -> None:
        """Put the task's state back as after `configure`."""
        self._send(_running(vgpu), _RESET, b"", "the reset")

    def _send(self, vgpu: GspVgpu, message: int, body: bytes, what: str) -> bytes:
        """A message to the task. One that is not answered in time is told as the crash of the task, unless the firmware told its end."""
        try:
            return vgpu.rpc.send(message, body, what)
        except TaskGone:
            vgpu.silent = True
            raise
        except CallTimeout:
            vgpu.silent = True
            self._session.boot.context.deliver(VgpuPluginEvent(vgpu.function, "crashed"))
            raise

    @may_sleep
    def shutdown(self, vgpu: VgpuRef) -> None:
        """End the task. Idempotent."""
        self._down(cast(GspVgpu, vgpu), {_SHUTDOWN})

    @may_sleep
    def cleanup(self, vgpu: VgpuRef) -> None:
        """Free what the ended (or crashed) task left; the VF can be used again afterwards. All that is left to ask is asked, also after a
        refusal; the first one is raised, and the next cleanup asks again for what was refused. Idempotent; once nothing is left, the heap's
        lease is given back."""
        self._down(cast(GspVgpu, vgpu), _WAY_DOWN)

    def _down(self, vgpu: GspVgpu, wanted: Collection[str]) -> None:
        """Ask for the wanted controls that are left."""
        refused: dict[str, NvcoreError] = {}
        for name in [name for name in vgpu.left if name in wanted]:
            try:
                self._control(name, vgpu, _WAY_DOWN[name])
            except FirmwareIsDead:  # and has nothing of it any more
                self._forget(vgpu)
                raise
            except NvcoreError as error:
                if not (isinstance(error, CallRefused) and error.status == _OBJECT_NOT_FOUND):
                    refused[name] = error
                    continue
            vgpu.left.remove(name)
            if name == _CLEANUP and _SHUTDOWN in refused:  # what was cleaned up has ended, whatever was said before
                del refused[_SHUTDOWN]
                vgpu.left.remove(_SHUTDOWN)
        for first in refused.values():
            raise first
        if not vgpu.left:
            self._forget(vgpu)

    def _forget(self, vgpu: GspVgpu) -> None:
        """The firmware has nothing of it."""
        vgpu.left.clear()
        if vgpu.owner.tasks.pop(vgpu, None) is not None:
            self._session.book.alive["vgpu"] -= 1
        vgpu.heap.release()

    @may_sleep
    def usage(self) -> Mapping[int, int]:
        """Framebuffer in use by guests, bytes by VF number."""
        rm = self._session.rm
        layout = rm.abi.struct(_PARAMS + "GET_VGPU_FB_USAGE_PARAMS")
        reply = layout.unpack(rm.internal(_PREFIX + "GET_VGPU_FB_USAGE", layout.pack(), "the use of memory by vGPUs"))
        entries = reply["vgpuFbUsage"]
        return {int(entry["gfid"]): int(entry["fbUsed"]) for entry in entries[: min(int(reply["vgpuCount"]), len(entries))]}

    def _control(self, name: str, vgpu: GspVgpu, what: str) -> None:
        rm = self._session.rm
        params = rm.abi.struct(f"{_PARAMS}{name}_PARAMS").pack(gfid=vgpu.function)
        rm.control(vgpu.owner.client, SUBDEVICE, rm.abi.enum(_PREFIX + name), params, f"{what} of function {vgpu.function}")


def routing_id(address: str) -> int:
    """ "DDDD:BB:DD.F" as the firmware counts it: domain, bus, device and function."""
    domain, bus, rest = address.split(":")
    device, _, function = rest.partition(".")
    return int(domain, 16) << 16 | int(bus, 16) << 8 | int(device, 16) << 3 | int(function or "0", 16)


def _running(vgpu: VgpuRef) -> GspVgpu:
    target = cast(GspVgpu, vgpu)
    if _SHUTDOWN not in target.left or target.silent:
        raise ContractError(f"the task of function {target.function} does not run", remedy="start it with bootload")
    return target
