"""The first message: versions and capabilities.

Pure functions. QEMU 11.1 reads the reply into the buffer of its request, so the reply says only what differs from the defaults.
"""

from __future__ import annotations

import errno
import json
from struct import Struct
from typing import Final

from nvcore.vfio_user.wire import Refused

__all__ = ["answer"]

_VERSION: Final = Struct("<HH")
MAJOR, MINOR = 0, 0
MAX_MSG_FDS: Final = 8  # announced; everything else is the protocol's default (1 MiB transfers, 65,535 maps, 4 KiB pages)


def _reject(why: str) -> Refused:
    return Refused(errno.EINVAL, why)


def answer(body: memoryview, *, batches: bool) -> bytes:
    """The body of the reply to a VERSION request; Refused for one that is not valid. batches: whether to offer REGION_WRITE_MULTI, which
    QEMU sends while writes are posted, so to a device of which nothing is mapped."""
    if len(body) < _VERSION.size:
        raise _reject("VERSION without a version")
    major, minor = _VERSION.unpack_from(body)
    if major != MAJOR:
        raise _reject(f"major version {major}, this is {MAJOR}")
    _check_capabilities(bytes(body[_VERSION.size :]))
    capabilities = {"max_msg_fds": MAX_MSG_FDS} | ({"write_multiple": True} if batches else {})
    text = json.dumps({"capabilities": capabilities}, separators=(",", ":")).encode() + b"\0"
    return _VERSION.pack(MAJOR, min(minor, MINOR)) + text


def _check_capabilities(text: bytes) -> None:
    if not text:
        return
    if not text.endswith(b"\0"):
        raise _reject("capabilities without their NUL")
    try:
        document = json.loads(text.rstrip(b"\0") or b"{}")
    except (ValueError, RecursionError):
        raise _reject("capabilities are no JSON") from None
    capabilities = document.get("capabilities", {}) if isinstance(document, dict) else None
    if not isinstance(capabilities, dict):
        raise _reject("capabilities are no object")
    for name, low, high in (
        ("max_msg_fds", 0, 1024),
        ("max_data_xfer_size", 1, 1 << 32),
        ("max_dma_maps", 1, 1 << 32),
        ("pgsizes", 1, 1 << 64),
    ):
        value = capabilities.get(name, low)
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise _reject(f"capability {name} is {value!r}")
