"""The plugin module of the software GPU: hooks only, nothing imported before it is used."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from pluggy import HookimplMarker

if TYPE_CHECKING:
    from nvcore.api.device import Bus
    from nvcore.api.offers import BusOffer, CheckOffer, Finding, HostInfo
    from nvcore_softgpu.bus import SoftBus

__all__ = ["nvcore_buses", "nvcore_doctor_checks"]

hookimpl = HookimplMarker("nvcore")


@hookimpl
def nvcore_buses(host: HostInfo) -> Iterable[BusOffer]:
    """The bus of the scheme "softgpu"."""
    from nvcore.api.offers import BusOffer

    clock = host.clock

    def open_bus(config: Mapping[str, object]) -> Bus:
        from nvcore_softgpu.bus import SoftBus

        bus = host.shared["bus"] = SoftBus(clock=clock)
        return bus

    return [BusOffer("softgpu", "GPUs in software, at register, DMA and queue level", ("softgpu",), open_bus)]


@hookimpl
def nvcore_doctor_checks(host: HostInfo) -> Iterable[CheckOffer]:
    """What the software GPUs of this host saw their drivers do wrong, or did not know."""
    from nvcore.api.offers import CheckOffer

    def check() -> Iterable[Finding]:
        bus: SoftBus | None = host.shared.get("bus")
        if bus is None:
            return ()
        from nvcore_softgpu.checks import findings

        return findings(bus.cards())

    return [CheckOffer("softgpu", "drivers keep the rules of the software GPUs", check)]
