"""Errors of a boot. One class per thing an operator can do about it; stages turn them into the cause of the boot report."""

from __future__ import annotations

from nvcore.api.errors import BootError, NvcoreError

__all__ = [
    "BootTimeout",
    "BooterFailed",
    "ForeignFirmware",
    "FspRefused",
    "FwsecFailed",
    "GspDidNotStart",
    "LayoutError",
    "RegisterBlocked",
    "SequencerError",
    "StageFailed",
    "SystemRefused",
    "WprStillUp",
]


class StageFailed(BootError):
    """A boot stopped at a stage; carries the report, and the code of its cause in it."""

    code = "NVC-2110"


class RegisterBlocked(NvcoreError):
    """A register gives an error pattern although the GPU answers: it is protected, powered down or broken. Never used as data."""

    code = "NVC-2111"
    usual_remedy = "reset the device: nvcore gpus reset GPU"


class BootTimeout(NvcoreError):
    """A wait of the boot ended without what it waited for; `seen` is the last value, decoded."""

    code = "NVC-2112"
    usual_remedy = "nvcore dump keeps the last registers; then reset the device: nvcore gpus reset GPU"


class ForeignFirmware(NvcoreError):
    """A firmware runs that no earlier run of this host started: its owner must take it down, or an operator reset the GPU."""

    code = "NVC-2120"


class WprStillUp(NvcoreError):
    """The protected region of an earlier firmware of ours is still there after its unload; a reset is needed."""

    code = "NVC-2121"


class LayoutError(NvcoreError):
    """The firmware and its heap do not fit into this GPU's memory."""

    code = "NVC-2130"
    usual_remedy = "choose another firmware version or a GPU with more memory"


class FwsecFailed(NvcoreError):
    """FWSEC ended with an error."""

    code = "NVC-2131"
    usual_remedy = "reset the device: nvcore gpus reset GPU"


class BooterFailed(NvcoreError):
    """The booter on SEC2 ended with an error or did not end; its code is opaque."""

    code = "NVC-2132"
    usual_remedy = "reset the device: nvcore gpus reset GPU"


class FspRefused(NvcoreError):
    """The FSP or the FMC did not accept the chain of trust."""

    code = "NVC-2133"
    usual_remedy = "reset the device: nvcore gpus reset GPU"


class GspDidNotStart(NvcoreError):
    """The firmware was loaded and did not come up, or came up with an error."""

    code = "NVC-2134"
    usual_remedy = "nvcore dump keeps the logs and registers; nvcore gpus retry GPU boots again"


class SequencerError(NvcoreError):
    """The firmware's register sequence is not acceptable: a register outside the list, a bad command, more time than the stage has."""

    code = "NVC-2135"
    usual_remedy = "nvcore dump keeps the sequence; nvcore gpus retry GPU boots again"


class SystemRefused(NvcoreError):
    """The operating system refused an access to the device or a file; `seen` is its own word."""

    code = "NVC-2136"
    usual_remedy = "the kernel's log says why; then: nvcore gpus retry GPU"
