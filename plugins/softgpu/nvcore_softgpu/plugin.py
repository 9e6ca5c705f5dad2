"""The plugin module of the software GPU: hooks only, nothing imported before it is used."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from pluggy import HookimplMarker

if TYPE_CHECKING:
    from nvcore.api.device import Bus
    from nvcore.api.offers import BusOffer, HostInfo

__all__ = ["nvcore_buses"]

hookimpl = HookimplMarker("nvcore")


@hookimpl
def nvcore_buses(host: HostInfo) -> Iterable[BusOffer]:
    """The bus of the scheme "softgpu"."""
    from nvcore.api.offers import BusOffer

    clock = host.clock

    def open_bus(config: Mapping[str, object]) -> Bus:
        from nvcore_softgpu.bus import SoftBus

        return SoftBus(clock=clock)

    return [BusOffer("softgpu", "GPUs in software, at register, DMA and queue level", ("softgpu",), open_bus)]
