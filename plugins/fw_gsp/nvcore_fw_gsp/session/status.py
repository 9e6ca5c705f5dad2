"""Names of status numbers, for texts only. A number without a name is its number; naming never raises.

Source: open-gpu-kernel-modules 570.144 nvstatuscodes.h; the same in all supported versions.
"""

from __future__ import annotations

from typing import Final

__all__ = ["status_name"]

_NAMES: Final = {
    0x02: "BUFFER_TOO_SMALL",
    0x03: "BUSY_RETRY",
    0x0F: "GPU_IS_LOST",
    0x17: "IN_USE",
    0x19: "INSERT_DUPLICATE_NAME",
    0x1A: "INSUFFICIENT_RESOURCES",
    0x1B: "INSUFFICIENT_PERMISSIONS",
    0x1E: "INVALID_ADDRESS",
    0x1F: "INVALID_ARGUMENT",
    0x21: "INVALID_CHANNEL",
    0x22: "INVALID_CLASS",
    0x23: "INVALID_CLIENT",
    0x24: "INVALID_COMMAND",
    0x26: "INVALID_DEVICE",
    0x2A: "INVALID_FUNCTION",
    0x2C: "INVALID_INDEX",
    0x2E: "INVALID_LIMIT",
    0x31: "INVALID_OBJECT",
    0x33: "INVALID_OBJECT_HANDLE",
    0x34: "INVALID_OBJECT_NEW",
    0x36: "INVALID_OBJECT_PARENT",
    0x37: "INVALID_OFFSET",
    0x3A: "INVALID_PARAM_STRUCT",
    0x3B: "INVALID_PARAMETER",
    0x3F: "INVALID_REQUEST",
    0x40: "INVALID_STATE",
    0x51: "NO_MEMORY",
    0x54: "NOT_COMPATIBLE",
    0x55: "NOT_READY",
    0x56: "NOT_SUPPORTED",
    0x57: "OBJECT_NOT_FOUND",
    0x59: "OPERATING_SYSTEM",
    0x60: "RC_ERROR",
    0x62: "RESET_REQUIRED",
    0x63: "STATE_IN_USE",
    0x65: "TIMEOUT",
    0x66: "TIMEOUT_RETRY",
    0x6A: "LIB_RM_VERSION_MISMATCH",
    0xFFFF: "GENERIC",
    0x10005: "MORE_PROCESSING_REQUIRED",
    0x10006: "NOTHING_TO_DO",
}


def status_name(status: int) -> str:
    """As in "status 0x56 NOT_SUPPORTED"; only the number where it has no name."""
    name = _NAMES.get(status)
    return f"status {status:#x} {name}" if name else f"status {status:#x}"
