"""The plugin module of fw_gsp: what it offers to the host. Imports the contracts only; everything else on use.

Wiring: `nvcore_firmware_backends` is called once, on the main thread.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from nvcore.api import hookimpl
from nvcore.api.offers import FirmwareOffer, HostInfo

if TYPE_CHECKING:
    from nvcore.api.firmware import FirmwareBackend

CHIPS = ("GA100", "GH100")
"""Chips that can be booted, as in `boot.chips`, which nothing imports before a boot."""

VERSIONS = ("570.144", "535.113.01")
"""Firmware versions that are driven, the preferred one first."""


@hookimpl
def nvcore_firmware_backends(host: HostInfo) -> Iterable[FirmwareOffer]:
    """GSP-RM on the chips that have a boot flow."""

    def roots() -> Sequence[str]:
        from nvcore_fw_gsp.images.errors import FirmwareMissing
        from nvcore_fw_gsp.images.find import absent, search_roots

        configured = getattr(host.config, "firmware_dir", ())  # no record where only this module of the plugin was registered
        missing = absent(configured)
        if missing:  # other images in its place would be used unasked
            remedy = "make the folder, or mend firmware_dir in [plugins.fw_gsp] or NVCORE_FIRMWARE"
            raise FirmwareMissing("a folder that was named for firmware is not there", seen="; ".join(missing), remedy=remedy)
        return search_roots(configured, state_dir=None if host.state_dir is None else str(host.state_dir))

    def open_backend() -> FirmwareBackend:
        from nvcore_fw_gsp.backend import GspBackend

        return GspBackend(roots, lambda: getattr(host.config, "vbios", ()))

    return [FirmwareOffer("gsp-rm", "GSP-RM firmware, booted and driven over its message queues", CHIPS, VERSIONS, open_backend)]
