"""Errors of the ABI data: unknown version, unknown name, wrong member, wrong value. Codes NVC-2010 to 2014.

Owns nothing else; any thread.
"""

from __future__ import annotations

from nvcore.api.errors import NvcoreError

__all__ = ["AbiError", "AbiFieldError", "AbiNameError", "AbiValueError", "AbiVersionError"]


class AbiError(NvcoreError):
    """The ABI data and its user disagree."""

    code = "NVC-2010"
    usual_remedy = "the ABI data and the code that uses it are of different releases: install one release of nvcore-fw-gsp"


class AbiVersionError(AbiError):
    """No data for this firmware version; neighbours are never used unasked."""

    code = "NVC-2011"


class AbiNameError(AbiError):
    """This version has no structure or value of that name."""

    code = "NVC-2012"


class AbiFieldError(AbiError):
    """This structure has no such member."""

    code = "NVC-2013"


class AbiValueError(AbiError):
    """A value does not fit its member, or a buffer does not hold the structure."""

    code = "NVC-2014"
