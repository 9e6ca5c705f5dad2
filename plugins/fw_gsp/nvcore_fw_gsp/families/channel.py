"""Family "channel": channels on runlists.

Owns nothing beyond the session's books. Any thread that may sleep.
Source: open-gpu-kernel-modules alloc_channel.h, ctrla06f.h, ctrlc36f.h; nouveau nvkm/subdev/gsp/rm/r535/{fifo,ce}.c; class ids:
nouveau's tables.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, cast

from nvcore.api.errors import ContractError, NotSupportedError, UsageError
from nvcore.api.families import ChannelRef, ChannelSpec, SpaceRef
from nvcore.api.marks import may_sleep
from nvcore_fw_gsp.session.tenant import DEVICE, GspChannel, GspSpace

if TYPE_CHECKING:
    from nvcore_fw_gsp.session.gsp import GspSession

__all__ = ["ChannelFamily"]

_SYSTEM, _VRAM = 1, 2
_USERD_FIXED: Final = 1 << 21
_PRIVILEGED: Final = 1 << 5
_INTERNAL_USER: Final = 0x14
_INTERNAL_ADMIN: Final = 0x15
_INSTANCE_SIZE, _USERD_SIZE, _RAMFC_SIZE = 0x1000, 0x200, 0x200
_COPY_VERSION: Final = 1


class ChannelFamily:
    """See `nvcore.api.families.ChannelFamily`."""

    name = "channel"
    version = 1

    def __init__(self, session: GspSession) -> None:
        self._session = session
        self._fault_buffer = 0

    @may_sleep
    def fault_buffer_size(self) -> int:
        """Bytes that `ChannelSpec.fault_buffer` must have; asked of the firmware once."""
        if not self._fault_buffer:
            rm = self._session.rm
            layout = rm.abi.struct("NV2080_CTRL_CE_GET_FAULT_METHOD_BUFFER_SIZE_PARAMS")
            reply = rm.internal("NV2080_CTRL_CMD_CE_GET_FAULT_METHOD_BUFFER_SIZE", layout.pack(), "the size of the fault method buffer")
            self._fault_buffer = int(layout.get(reply, "size"))
        return self._fault_buffer

    @may_sleep
    def create(self, space: SpaceRef, spec: ChannelSpec) -> GspChannel:
        """Make the channel and bind it to its engine's runlist; it does not run yet."""
        session, home = self._session, cast(GspSpace, space)
        owner = home.owner
        if not home.open:
            raise ContractError(f"the address space of a channel for {owner.label} was freed", remedy="create another one")
        engine = session.engines.by_name.get(spec.engine)
        runlist = session.runlists().get(spec.engine)
        if engine is None or runlist is None:
            raise UsageError(f"no engine {spec.engine} on this GPU", expected=", ".join(session.runlists()), seen=spec.engine)
        abi, handle = session.rm.abi, owner.channel_handle()
        page, index = divmod(spec.channel, 8)
        params = abi.struct("NV_CHANNEL_ALLOC_PARAMS").pack(
            {
                "gpFifoOffset": spec.ring_address,
                "gpFifoEntries": spec.ring_entries,
                "flags": _USERD_FIXED | page << 12 | index << 8 | (_PRIVILEGED if spec.privileged else 0),
                "hVASpace": home.handle,
                "engineType": engine.nv2080,
                **_memory("instanceMem", spec.instance, _INSTANCE_SIZE, _VRAM, 1),
                **_memory("userdMem", spec.userd, _USERD_SIZE, _VRAM, 1),
                **_memory("ramfcMem", spec.instance, _RAMFC_SIZE, _VRAM, 1),
                **_memory("mthdbufMem", spec.fault_buffer, spec.fault_buffer_size, _SYSTEM, 0),
                "internalFlags": _INTERNAL_ADMIN if spec.privileged else _INTERNAL_USER,
            }
        )
        what = f"channel {spec.channel} on {spec.engine} for {owner.label}"
        session.rm.alloc(owner.client, DEVICE, handle, session.boot.chip.channel_class, params, what)
        channel = GspChannel(owner, handle, spec.channel, spec.engine, runlist << 16 | spec.channel)
        owner.channels.append(channel)
        session.book.alive["channel"] += 1
        try:
            bind = abi.struct("NVA06F_CTRL_BIND_PARAMS").pack(engineType=engine.nv2080)
            session.rm.control(owner.client, handle, abi.enum("NVA06F_CTRL_CMD_BIND"), bind, f"binding {what}")
        except BaseException:
            session.try_free(lambda: self.destroy(channel), what)
            raise
        return channel

    @may_sleep
    def create_engine_object(self, channel: ChannelRef) -> None:
        """Make the object of the channel's engine."""
        session, target = self._session, _checked(channel)
        engine = session.engines.by_name[target.engine]
        if engine.kind != "copy":
            raise NotSupportedError(f"no engine object for {target.engine} yet", expected="a copy engine", seen=engine.kind)
        abi, owner = session.rm.abi, target.owner
        params = abi.struct("NVC0B5_ALLOCATION_PARAMETERS").pack(version=_COPY_VERSION, engineType=engine.nv2080)
        session.rm.alloc(
            owner.client, target.handle, owner.object_handle(), session.boot.chip.copy_class, params, f"the {target.engine} object"
        )
        target.objects += 1
        session.book.alive["object"] += 1

    @may_sleep
    def enable(self, channel: ChannelRef) -> None:
        """Put it on the runlist."""
        target = _checked(channel)
        self._schedule(target, True)

    @may_sleep
    def disable(self, channel: ChannelRef) -> None:
        """Take it off the runlist. Idempotent."""
        target = _checked(channel)
        if target.enabled:
            self._schedule(target, False)

    def _schedule(self, channel: GspChannel, enabled: bool) -> None:
        rm = self._session.rm
        params = rm.abi.struct("NVA06F_CTRL_GPFIFO_SCHEDULE_PARAMS").pack(bEnable=enabled)
        word = "enabling" if enabled else "disabling"
        rm.control(
            channel.owner.client,
            channel.handle,
            rm.abi.enum("NVA06F_CTRL_CMD_GPFIFO_SCHEDULE"),
            params,
            f"{word} channel {channel.channel}",
        )
        channel.enabled = enabled

    @may_sleep
    def destroy(self, channel: ChannelRef) -> None:
        """Disable and free it. Idempotent."""
        target = cast(GspChannel, channel)
        if not target.open:
            return
        session, owner = self._session, target.owner
        try:
            if session.dead is None:
                self.disable(target)
        finally:
            target.open = False
            owner.channels.remove(target)
            session.book.alive["channel"] -= 1
            session.book.alive["object"] -= target.objects
            session.rm.free(owner.client, target.handle, f"channel {target.channel} of {owner.label}")


def _memory(name: str, base: int, size: int, space: int, attribute: int) -> dict[str, int]:
    return {f"{name}.base": base, f"{name}.size": size, f"{name}.addressSpace": space, f"{name}.cacheAttrib": attribute}


def _checked(channel: ChannelRef) -> GspChannel:
    target = cast(GspChannel, channel)
    if not target.open:
        raise ContractError(f"channel {target.channel} was destroyed", remedy="create another one")
    return target
