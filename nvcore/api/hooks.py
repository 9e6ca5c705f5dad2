"""Hook specifications, one class a family: the Protocol that a plugin module of this family type-checks against.

Every hook is `def NAME(host: HostInfo) -> Iterable[Offer]`. Hooks are for wiring: each is called once per host, on the main thread, after
all selected plugins are registered; it must not block and must not touch hardware. One that raises is recorded against its plugin; the
results of the others are kept. Results are combined by concatenation; two offers of one name or one claim are a reported conflict. Since
API 1.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final, Protocol

from pluggy import HookspecMarker

if TYPE_CHECKING:
    from nvcore.api.control import HostView
    from nvcore.api.offers import (
        BusOffer,
        CheckOffer,
        ClientOffer,
        ConfigSection,
        FirmwareOffer,
        HostInfo,
        InterfaceOffer,
        MetricOffer,
        PanelOffer,
        ServiceOffer,
    )

__all__ = ["SPECIFICATIONS", "ClientPlugin", "DevicePlugin", "FirmwarePlugin", "OperatorPlugin"]

hookspec: Final = HookspecMarker("nvcore")


class DevicePlugin(Protocol):
    """Family "device"."""

    @hookspec
    def nvcore_buses(self, host: HostInfo) -> Iterable[BusOffer]:
        """Buses that this plugin can open."""


class FirmwarePlugin(Protocol):
    """Family "firmware"."""

    @hookspec
    def nvcore_firmware_backends(self, host: HostInfo) -> Iterable[FirmwareOffer]:
        """Firmware backends, with the chips that they claim."""


class ClientPlugin(Protocol):
    """Family "client"."""

    @hookspec
    def nvcore_client_drivers(self, host: HostInfo) -> Iterable[ClientOffer]:
        """Client drivers, with the functions that they claim."""


class OperatorPlugin(Protocol):
    """Family "operator", any of these: configuration, control, status, metrics, checks, services; and two observers whose errors are
    grouped."""

    @hookspec
    def nvcore_config_sections(self, host: HostInfo) -> Iterable[ConfigSection]:
        """The plugin's configuration section. Called before all other hooks; `host.config` is None here."""

    @hookspec
    def nvcore_control_interfaces(self, host: HostInfo) -> Iterable[InterfaceOffer]:
        """Interfaces served at the control socket."""

    @hookspec
    def nvcore_status_panels(self, host: HostInfo) -> Iterable[PanelOffer]:
        """Panels of the status screen."""

    @hookspec
    def nvcore_metrics(self, host: HostInfo) -> Iterable[MetricOffer]:
        """Metrics for exporters."""

    @hookspec
    def nvcore_doctor_checks(self, host: HostInfo) -> Iterable[CheckOffer]:
        """Checks for `nvcore doctor`."""

    @hookspec
    def nvcore_services(self, host: HostInfo) -> Iterable[ServiceOffer]:
        """Things that run beside the host."""

    @hookspec
    def nvcore_host_started(self, host: HostView) -> None:
        """Observer: the host is up (before READY). Runs in a daemon thread and is abandoned after 5 s."""

    @hookspec
    def nvcore_host_stopping(self, host: HostView) -> None:
        """Observer: the host begins to stop. All implementations run, each abandoned after 5 s."""


SPECIFICATIONS: Final = {"device": DevicePlugin, "firmware": FirmwarePlugin, "client": ClientPlugin, "operator": OperatorPlugin}
"""Specification class of each family."""
