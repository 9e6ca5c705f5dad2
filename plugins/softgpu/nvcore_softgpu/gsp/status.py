"""NV_STATUS values that the model answers.

Source: open-gpu-kernel-modules 570.144, nvstatuscodes.h; the same in 535.113.01.
"""

from __future__ import annotations

__all__ = ["Status"]


class Status:
    """Numbers by name."""

    OK = 0x00
    STATE_IN_USE = 0x63
    IN_USE = 0x17
    DUPLICATE_NAME = 0x19
    INSUFFICIENT_RESOURCES = 0x1A
    INVALID_ADDRESS = 0x1E
    INVALID_ARGUMENT = 0x1F
    INVALID_CHANNEL = 0x21
    INVALID_CLASS = 0x22
    INVALID_CLIENT = 0x23
    INVALID_DEVICE = 0x26
    INVALID_INDEX = 0x2C
    INVALID_LIMIT = 0x2E
    INVALID_OBJECT = 0x31
    INVALID_OBJECT_HANDLE = 0x33
    INVALID_OBJECT_NEW = 0x34
    INVALID_OBJECT_PARENT = 0x36
    INVALID_OFFSET = 0x37
    INVALID_PARAM_STRUCT = 0x3A
    INVALID_STATE = 0x40
    NOT_SUPPORTED = 0x56
    OBJECT_NOT_FOUND = 0x57
    # transport: answered in rpc_result
    UNKNOWN_FUNCTION = 0xFF100001
    INVALID_FORMAT = 0xFF100002
