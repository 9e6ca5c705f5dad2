"""Hook specifications, one class a family: the Protocol that a plugin module of this family type-checks against.

Every hook is `def NAME(host: HostInfo) -> Iterable[Offer]`. Hooks are for wiring: each is called once per host, on the main thread, after
all selected plugins are registered; it must not block and must not touch hardware. One that raises is recorded against its plugin; the
results of the others are kept. Results are combined by concatenation; two offers of one name or one claim are a reported conflict. What is
named nvcore_… here is a hook. Since API 1.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final, Protocol

from pluggy import HookspecMarker

if TYPE_CHECKING:
    from nvcore.api import offers
    from nvcore.api.control import HostView

__all__ = ["SPECIFICATIONS", "ClientPlugin", "DevicePlugin", "FirmwarePlugin", "OperatorPlugin"]


class DevicePlugin(Protocol):
    """Family "device"."""

    def nvcore_buses(self, host: offers.HostInfo) -> Iterable[offers.BusOffer]:
        """Buses that this plugin can open."""


class FirmwarePlugin(Protocol):
    """Family "firmware"."""

    def nvcore_firmware_backends(self, host: offers.HostInfo) -> Iterable[offers.FirmwareOffer]:
        """Firmware backends, with the chips that they claim."""


class ClientPlugin(Protocol):
    """Family "client"."""

    def nvcore_client_drivers(self, host: offers.HostInfo) -> Iterable[offers.ClientOffer]:
        """Client drivers, with the functions that they claim."""


class OperatorPlugin(Protocol):
    """Family "operator", any of these: configuration, control, status, metrics, checks, services; and two observers whose errors are
    grouped."""

    def nvcore_config_sections(self, host: offers.HostInfo) -> Iterable[offers.ConfigSection]:
        """The plugin's configuration section. Called before all other hooks; `host.config` is None here."""

    def nvcore_control_interfaces(self, host: offers.HostInfo) -> Iterable[offers.InterfaceOffer]:
        """Interfaces served at the control socket."""

    def nvcore_status_panels(self, host: offers.HostInfo) -> Iterable[offers.PanelOffer]:
        """Panels of the status screen."""

    def nvcore_metrics(self, host: offers.HostInfo) -> Iterable[offers.MetricOffer]:
        """Metrics for exporters."""

    def nvcore_doctor_checks(self, host: offers.HostInfo) -> Iterable[offers.CheckOffer]:
        """Checks for `nvcore doctor`."""

    def nvcore_services(self, host: offers.HostInfo) -> Iterable[offers.ServiceOffer]:
        """Things that run beside the host."""

    def nvcore_host_started(self, host: HostView) -> None:
        """Observer: the host is up (before READY). Runs in a daemon thread and is abandoned after 5 s."""

    def nvcore_host_stopping(self, host: HostView) -> None:
        """Observer: the host begins to stop. All implementations run, each abandoned after 5 s."""


# Specification class of each family.
SPECIFICATIONS: Final = {"device": DevicePlugin, "firmware": FirmwarePlugin, "client": ClientPlugin, "operator": OperatorPlugin}

_specify = HookspecMarker("nvcore")
for _family in SPECIFICATIONS.values():
    for _hook in (value for name, value in vars(_family).items() if name.startswith("nvcore_")):
        _specify(_hook)
