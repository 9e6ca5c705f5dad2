"""Functions: what a GPU offers to clients, published on a registry much like the kernel's auxiliary bus."""

from __future__ import annotations

from typing import Literal

import attrs

from nvcore.api.identity import GpuIdentity

__all__ = ["Function", "FunctionKind"]

FunctionKind = Literal["vgpu", "graphics", "display"]


@attrs.frozen
class Function:
    """One function of one GPU. name: "0000:41:00.0/vgpu". published: clients may match it; otherwise `reason` and `remedy` say why not.

    owner: client that holds it, or None. One owner per function; an owner may leave at any time.
    """

    name: str
    kind: FunctionKind
    gpu: GpuIdentity
    published: bool
    reason: str | None = None
    remedy: str | None = None
    owner: str | None = None
