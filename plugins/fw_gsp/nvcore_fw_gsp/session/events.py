"""What the firmware says by itself, decoded into the core's records. A number or a value without a name is passed on as its number.

Owns the layouts of the events of one version. Runs on whichever thread receives (the opener, then the receiver): decoding never sleeps and
never raises for a message; a message that is too short for its layout is passed on as what it is.
Source: open-gpu-kernel-modules g_rpc-structures.h, rpc_global_enums.h, nverror.h at the version's tag.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from nvcore.api.errors import FormatError
from nvcore.api.events import ChannelFault, FirmwareEvent, FirmwareHalted, FirmwareMessage, VgpuPluginEvent
from nvcore_fw_gsp.abi import Abi
from nvcore_fw_gsp.abi.errors import AbiError
from nvcore_fw_gsp.session.engines import EngineNumbers

__all__ = ["EventDesk"]

_PREFIX: Final = "NV_VGPU_MSG_EVENT_"
_XIDS: Final = {
    13: "graphics-exception",
    31: "mmu-fault",
    32: "pbdma-error",
    38: "firmware-error",
    39: "copy-exception",
    43: "reset-channel",
    44: "graphics-fault",
    45: "preemptive-removal",
    69: "graphics-class-error",
    94: "contained-ecc",
    95: "uncontained-ecc",
    109: "context-switch-timeout",
}
# What a vGPU's task tells: notifiers of class NVA084, cla084.h of open-gpu-kernel-modules 570.144.
_TASK_NOTES: Final = {
    0: "started",
    1: "ended",
    2: "crashed",
    3: "guest driver loaded",
    4: "guest driver unloaded",
    5: "error message",
    6: "licence state changed",
    7: "guest system known",
    8: "guest trace",
    9: "graphics engine ready",
}
_MMU_FAULT: Final = 31


class EventDesk:
    """Decodes for one session. deliver: the core's; `unknown` counts numbers without a name; lockdown: the GSP's registers must not be
    touched; gone: vGPU tasks that run no more, as told last, with the word for it."""

    __slots__ = ("_abi", "_deliver", "_handlers", "_rc", "_xid", "engines", "gone", "lockdown", "unknown")

    def __init__(self, abi: Abi, engines: EngineNumbers, deliver: Callable[[FirmwareEvent], None]) -> None:
        self._abi, self.engines, self._deliver = abi, engines, deliver
        self._rc = abi.struct("rpc_rc_triggered_v17_02")
        self._xid = abi.struct("rpc_os_error_log_v17_00")
        self.lockdown = False
        self.gone: dict[int, str] = {}
        self.unknown = 0
        table: dict[str, Callable[[bytes], None]] = {
            "RC_TRIGGERED": self._channel_stopped,
            "OS_ERROR_LOG": self._error_log,
            "MMU_FAULT_QUEUED": lambda payload: self._say("mmu-fault-queued", ""),
            "VGPU_GSP_PLUGIN_TRIGGERED": self._plugin,
            "GSP_LOCKDOWN_NOTICE": self._lockdown,
            "UCODE_LIBOS_PRINT": lambda payload: None,
            "PERF_BRIDGELESS_INFO_UPDATE": lambda payload: None,
            "GSP_SEND_USER_SHARED_DATA": lambda payload: None,
        }
        self._handlers = {abi.enum(_PREFIX + name): handler for name, handler in table.items() if abi.has_value(_PREFIX + name)}

    def handle(self, number: int, result: int, payload: bytes) -> None:
        """One event."""
        handler = self._handlers.get(number)
        try:
            if handler is not None:
                handler(payload)
            else:
                self.unknown += 1
                self._say("unknown-event", f"event {number:#x}, result {result:#x}, {len(payload)} bytes", number)
        except (AbiError, FormatError) as error:
            self._say("malformed-event", f"event {number:#x}, {len(payload)} bytes: {error}", number)

    def note(self, name: str, text: str) -> None:
        """Something about the transport itself."""
        self._say(name, text)

    def halted(self, cause: str) -> None:
        """The firmware was declared dead."""
        self._deliver(FirmwareHalted(cause))

    def _say(self, name: str, text: str, number: int | None = None) -> None:
        self._deliver(FirmwareMessage(name, text, number))

    def _channel_stopped(self, payload: bytes) -> None:
        layout = self._rc
        get: Callable[[str], Any] = lambda name: layout.get(payload, name)  # noqa: E731
        kind = get("exceptType")
        engine = self.engines.by_nv2080.get(get("nv2080EngineType"))
        address = None
        if kind == _MMU_FAULT and layout.has("mmuFaultAddrLo"):
            address = get("mmuFaultAddrHi") << 32 | get("mmuFaultAddrLo")
        function = get("gfid") if layout.has("gfid") else None  # firmware before 550 does not name the guest
        self._deliver(ChannelFault(get("chid"), engine.name if engine else None, _XIDS.get(kind, f"xid-{kind}"), function, address))

    def _error_log(self, payload: bytes) -> None:
        layout = self._xid
        text = bytes(layout.get(payload, "errString")).split(b"\0", 1)[0].decode("utf-8", "backslashreplace")
        kind = layout.get(payload, "exceptType")
        self._say(f"xid-{kind}", text, kind)

    def _plugin(self, payload: bytes) -> None:
        layout = self._abi.struct("rpc_vgpu_gsp_plugin_triggered_v17_00")
        index = layout.get(payload, "notifyIndex")
        function, what = layout.get(payload, "gfid"), _TASK_NOTES.get(index, f"note {index}")
        if what in ("crashed", "ended"):
            self.gone[function] = what
        elif what == "started":
            self.gone.pop(function, None)
        self._deliver(VgpuPluginEvent(function, what))

    def _lockdown(self, payload: bytes) -> None:
        if not payload:
            raise FormatError("a lockdown notice without its byte", expected="1 byte", seen=0)
        self.lockdown = bool(payload[0])
        self._say("lockdown", "engaged" if self.lockdown else "lifted")
