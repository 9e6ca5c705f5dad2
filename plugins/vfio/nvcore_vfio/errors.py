"""Errors of vGPUs: what an operator can do about each is its class. Codes 3xxx."""

from __future__ import annotations

from nvcore.api.errors import ConflictError, NotFoundError, NotRunningError, NvcoreError, OutOfResources

__all__ = [
    "BringUpFailed", "NoCapacity", "NoFirmware", "NoVgpuHost", "NotStored", "PinnedMismatch", "UnknownVgpu", "UnusableRecord", "VgpuExists",
    "VgpuInUse", "taken", "told",
]  # fmt: skip


class UnknownVgpu(NotFoundError):
    """No vGPU of that name is declared."""

    code = "NVC-3001"
    usual_remedy = "nvcore vgpu list shows what is declared"


class VgpuExists(ConflictError):
    """The name is taken."""

    code = "NVC-3002"


def taken(name: str, declared: bool) -> VgpuExists:
    """The error for a name that a vGPU has, or only a record that cannot be used."""
    if declared:
        return VgpuExists(f"vGPU {name} exists", remedy="choose another name, or destroy it first")
    what = f"there is a record of a vGPU {name} that cannot be used"
    return VgpuExists(what, remedy="choose another name; `nvcore doctor` says what is wrong")


class NoVgpuHost(NotFoundError):
    """The GPU publishes no vgpu function, or does not exist."""

    code = "NVC-3003"


class NoCapacity(OutOfResources):
    """No further vGPU of this type fits."""

    code = "NVC-3107"


class VgpuInUse(ConflictError):
    """A virtual machine holds the vGPU."""

    code = "NVC-3004"
    usual_remedy = "shut its virtual machine down first"


class NoFirmware(NotRunningError):
    """The GPU hosts no vGPUs now: nothing can be started on it."""

    code = "NVC-3005"
    usual_remedy = "nvcore gpus show GPU and nvcore doctor say why; then try again"


class BringUpFailed(NvcoreError):
    """The firmware did not bring the vGPU up; what had been taken was given back."""

    code = "NVC-3006"
    usual_remedy = "nvcore events shows what the firmware said; nvcore vgpu start tries again"


class PinnedMismatch(NvcoreError):
    """What the vGPU was pinned to at creation is not what is here now: it is not started, so that its guest sees no change."""

    code = "NVC-3007"
    usual_remedy = "bring back what it was made with, or destroy it and create it anew"


class NotStored(NvcoreError):
    """The state directory took no change of a vGPU's record; what had been started or declared for it was undone."""

    code = "NVC-3009"
    usual_remedy = "make room in the state directory, or make it writable, then try again"


class UnusableRecord(NvcoreError):
    """A vGPU's record can be read, and names what this GPU or this release does not have, or what is another vGPU's."""

    code = "NVC-3010"
    usual_remedy = "destroy the vGPU, or mend its record and reset the GPU: nvcore gpus reset GPU"


def told(error: BaseException) -> str:
    """An error as the reason of a state, or inside of another error: what and why, without the advice that belongs to where it was met."""
    if not isinstance(error, NvcoreError):
        return str(error) or type(error).__name__
    if isinstance(error, BringUpFailed) and error.seen:
        return error.seen
    expected, seen = error.expected and f"; expected {error.expected}", error.seen and f"; seen {error.seen}"
    return f"{error.what}{expected or ''}{seen or ''} ({error.code})"
