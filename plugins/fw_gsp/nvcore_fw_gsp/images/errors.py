"""Errors of firmware files: one class per thing a reader can do about it. Codes NVC-2020 to 2027.

Owns nothing else; any thread.
"""

from __future__ import annotations

from nvcore.api.errors import FormatError, NotFoundError, NotSupportedError, NvcoreError

__all__ = [
    "ChipNotSupported",
    "FirmwareDamaged",
    "FirmwareFormatError",
    "FirmwareMissing",
    "FirmwareUnreadable",
    "ReleaseMismatch",
    "SignatureUnusable",
    "VersionNotSupported",
]


class FirmwareFormatError(FormatError):
    """A firmware file is not what its container format says; nothing was used of it."""

    code = "NVC-2020"
    usual_remedy = "nvcore firmware verify names every file that is not whole; nvcore firmware fetch --force gets them again"


class FirmwareMissing(NotFoundError):
    """No usable set of files; the text lists what was looked for, where, and which versions are there."""

    code = "NVC-2021"
    usual_remedy = "nvcore firmware fetch gets complete sets without root; nvcore firmware list shows the sets that there are"


class ChipNotSupported(NotSupportedError):
    """No row for this chip, or the image carries no signature for it; another chip's files are never used instead."""

    code = "NVC-2022"
    usual_remedy = "nvcore firmware list shows the chips and the sets that there are"


class SignatureUnusable(NvcoreError):
    """None of the signatures fits the chip's fuses; loading it anyway would end in a silent halt."""

    code = "NVC-2023"
    usual_remedy = "the chip wants another release of its files: nvcore firmware list shows which there are"


class FirmwareDamaged(NvcoreError):
    """A checksum or hash stored with the file does not fit its content."""

    code = "NVC-2024"
    usual_remedy = "nvcore firmware fetch --force gets the file again"


class FirmwareUnreadable(NvcoreError):
    """The file is there and the system will not let us read it."""

    code = "NVC-2025"


class ReleaseMismatch(NotSupportedError):
    """The image names another release than its file name; the queue and structure layouts would not match."""

    code = "NVC-2026"
    usual_remedy = "nvcore firmware fetch --force gets files under their own names"


class VersionNotSupported(NotSupportedError):
    """Files of a version that this backend does not drive; neighbours are never used unasked."""

    code = "NVC-2027"
