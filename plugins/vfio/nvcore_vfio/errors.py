"""Errors of vGPUs: what an operator can do about each is its class. Codes 3xxx."""

from __future__ import annotations

from nvcore.api.errors import ConflictError, NotFoundError, NvcoreError, OutOfResources

__all__ = ["BringUpFailed", "NoCapacity", "NoVgpuHost", "PinnedMismatch", "UnknownVgpu", "VgpuExists", "VgpuInUse"]


class UnknownVgpu(NotFoundError):
    """No vGPU of that name is declared."""

    code = "NVC-3001"


class VgpuExists(ConflictError):
    """The name is taken."""

    code = "NVC-3002"


class NoVgpuHost(NotFoundError):
    """The GPU publishes no vgpu function, or does not exist."""

    code = "NVC-3003"


class NoCapacity(OutOfResources):
    """No further vGPU of this type fits."""

    code = "NVC-3107"


class VgpuInUse(ConflictError):
    """A virtual machine holds the vGPU."""

    code = "NVC-3004"


class BringUpFailed(NvcoreError):
    """The firmware did not bring the vGPU up; what had been taken was given back."""

    code = "NVC-3006"


class PinnedMismatch(NvcoreError):
    """What the vGPU was pinned to at creation is not what is here now: it is not started, so that its guest sees no change."""

    code = "NVC-3007"
