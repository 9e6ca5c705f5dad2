"""Errors of a ROM: cannot be read, is malformed, or holds no usable FWSEC. Codes NVC-2030 to 2034.

Owns nothing else; any thread.
"""

from __future__ import annotations

from nvcore.api.errors import FormatError

__all__ = ["FwsecMissing", "VbiosError", "VbiosForeign", "VbiosFormatError", "VbiosUnreadable"]


class VbiosError(FormatError):
    """The VBIOS cannot be used; the GPU has not been touched because of it."""

    code = "NVC-2030"
    usual_remedy = "nvcore firmware inspect reads a dump of this ROM and says how far it gets"


class VbiosUnreadable(VbiosError):
    """The source gives no ROM; the reason is in `seen` (I/O error, zeros, all ones, bus error pattern, no signature)."""

    code = "NVC-2031"


class VbiosFormatError(VbiosError):
    """A structure in the ROM is not what it should be; the images found so far are in the text."""

    code = "NVC-2032"


class FwsecMissing(VbiosError):
    """The ROM is sound and holds no FWSEC that fits."""

    code = "NVC-2033"


class VbiosForeign(VbiosError):
    """The ROM in a file is sound and is that of another device; both devices' ids are in `seen`."""

    code = "NVC-2034"
