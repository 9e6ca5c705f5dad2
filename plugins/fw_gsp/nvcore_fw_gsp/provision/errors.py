"""Why firmware could not be fetched: one class per thing a reader can do about it, each one line. Codes NVC-2040 to 2048.

Owns nothing else. A caller with another way to go on (a synthetic image) catches `FetchError` and prints its line.
"""

from __future__ import annotations

import errno

from nvcore.api.errors import NvcoreError

__all__ = [
    "AptFailed",
    "AptMissing",
    "FetchError",
    "KeyringMissing",
    "MirrorRefused",
    "NetworkUnreachable",
    "PackageAbsent",
    "PackageDamaged",
    "PlaceNotWritable",
]


class FetchError(NvcoreError):
    """Firmware was not fetched; nothing was changed."""

    code = "NVC-2040"


class AptMissing(FetchError):
    """This machine has no apt, or its apt knows no Debian mirror."""

    code = "NVC-2041"


class KeyringMissing(FetchError):
    """No keyring to check the package's signature with, or one that lacks the key."""

    code = "NVC-2042"


class NetworkUnreachable(FetchError):
    """The mirror cannot be reached."""

    code = "NVC-2043"


class MirrorRefused(FetchError):
    """The mirror answers, and the answer is no."""

    code = "NVC-2044"


class PackageAbsent(FetchError):
    """The mirror has no such suite or package."""

    code = "NVC-2045"
    usual_remedy = "name a mirror of Debian that has it in apt's sources"


class PlaceNotWritable(FetchError):
    """The folder for the images cannot be written, or is full."""

    code = "NVC-2046"

    @classmethod
    def of(cls, what: str, folder: str, error: OSError) -> PlaceNotWritable:
        """The error behind a failed write below `folder`, with what to do about it."""
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        remedy = "make room there, or choose another folder with --to" if full else "choose another folder with --to"
        return cls(what, seen=str(error), where=folder, remedy=remedy)


class PackageDamaged(FetchError):
    """The package does not hold what it should."""

    code = "NVC-2047"
    usual_remedy = "try again later, or with another mirror"


class AptFailed(FetchError):
    """apt failed for a reason that is not in our table; its last line is shown."""

    code = "NVC-2048"
