"""Entry point of family "client": what vGPUs need at boot, and the driver. Imports nothing heavy: everything else is imported on use."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from nvcore.api import hookimpl
from nvcore.api.needs import NO_NEEDS, BootNeeds
from nvcore.api.offers import ClientOffer, HostInfo

if TYPE_CHECKING:
    from nvcore.api.identity import GpuIdentity
    from nvcore_vfio.client import VfioDriver

__all__ = ["driver", "nvcore_client_drivers"]

VGPU_CHIPS = frozenset({"GA100"})
VIRTUAL_FUNCTIONS = 16


def _needs(identity: GpuIdentity) -> BootNeeds:
    if identity.chip.name not in VGPU_CHIPS:
        return NO_NEEDS
    return BootNeeds(vgpu_host=True, virtual_functions=VIRTUAL_FUNCTIONS)


def driver(host: HostInfo) -> VfioDriver:
    """The one driver of this host."""
    found: VfioDriver | None = host.shared.get("driver")
    if found is None:
        from nvcore_vfio.client import VfioDriver

        limit = getattr(host.config, "vgpus_per_gpu", 0) or None
        # plugins/NAME is the plugin's own; a client's records lie in clients/NAME, also while no GPU gives it a context
        records = host.state_dir.parent.parent / "clients" / "vfio" if host.state_dir is not None else None
        found = host.shared.setdefault("driver", VfioDriver(limit, records))  # atomic: another thread may be here too
    return found


@hookimpl
def nvcore_client_drivers(host: HostInfo) -> Iterable[ClientOffer]:
    """The vGPU client."""
    return [ClientOffer("vfio", "vGPUs for virtual machines", ("vgpu",), _needs, lambda: driver(host))]
