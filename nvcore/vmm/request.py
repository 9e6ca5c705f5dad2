"""A request for several kinds of resources: where each of them would come from.

Owns nothing: it reads pools, under the lock of their owner, and changes none. Any thread.
"""

from __future__ import annotations

from collections.abc import Mapping

from nvcore.api.errors import UsageError
from nvcore.api.grant import GrantRequest
from nvcore.api.inventory import Range
from nvcore.vmm.pool import Pool

__all__ = ["plan_request"]


def plan_request(pools: Mapping[str, Pool], request: GrantRequest, parent: str | None) -> list[tuple[Pool, Range]]:
    """The units that serve a request as a whole, with their pools: out of the free ones, or of what `parent` owns. Raises OutOfResources,
    UsageError."""
    plan: list[tuple[Pool, Range]] = []

    def want(kind: str, size: int, align: int = 1, at: int | None = None, top_down: bool = False) -> None:
        if size:
            pool = pools[kind]
            source = pool.free if parent is None else pool.of(parent)
            plan.append((pool, pool.find(source, size, align=align, at=at, top_down=top_down)))

    if request.vram and request.vram_align & (request.vram_align - 1):
        raise UsageError("an alignment must be a power of two", seen=hex(request.vram_align))
    if request.power_of_two_channels and request.channels & (request.channels - 1):
        raise UsageError("a run of channel ids aligned to its own size must be a power of two", seen=request.channels)
    if len(set(request.functions)) != len(request.functions):
        raise UsageError("a virtual function is named twice", seen=request.functions)
    want("vram", request.vram, request.vram_align, request.vram_at, request.top_down)
    align = request.channels if request.power_of_two_channels else 1
    want("channels", request.channels, align, request.channels_at, request.top_down)
    want("bar1", request.bar1)
    for number in request.functions:
        want("functions", 1, at=number)
    want("heads", request.heads)
    return plan
