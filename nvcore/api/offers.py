"""Offers: what hooks return. Every offer has `name` and `summary`; the host stamps the plugin's name on it.

`open` and friends are called later and only for offers that are used; making an offer must cost nothing and touch nothing. Every command
that registers plugins makes these classes: without comparisons and texts of their own they cost a quarter of a bare start less.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import attrs

if TYPE_CHECKING:
    from pathlib import Path  # half a bare start, and needed in no record at run time

    from nvcore.api import client, control, device, firmware, identity
    from nvcore.api.clock import Clock
    from nvcore.api.needs import BootNeeds

__all__ = [
    "BusOffer", "CheckOffer", "ClientOffer", "ConfigSection", "Finding", "FirmwareOffer", "HostInfo",
    "InterfaceOffer", "MetricOffer", "Offer", "PanelOffer", "Sample", "ServiceOffer",
]


@attrs.define
class HostInfo:
    """What every hook gets. mode: "daemon", "embedded", "command" or "doctor". config: this plugin's configuration record or None.

    shared: a dictionary of this plugin in this host, so that its offers can find one another without module globals. state_dir: the
    plugin's folder in the state directory (None without one); clock: the host's clock.
    """

    version: str
    generations: Mapping[str, int]
    mode: Literal["daemon", "embedded", "command", "doctor"]
    clock: Clock
    config: Any = None
    state_dir: Path | None = None
    shared: dict[str, Any] = attrs.field(factory=dict)


@attrs.define(eq=False)
class Offer:
    """What every offer has. plugin: stamped by the host. An offer equals itself only, and is shown by these three fields."""

    name: str
    summary: str
    plugin: str = attrs.field(default="", kw_only=True)


@attrs.define(eq=False, repr=False)
class BusOffer(Offer):
    """A bus: `schemes` are the words before the colon of a source that it serves; `open(config)` makes it."""

    schemes: Sequence[str]
    open: Callable[[Mapping[str, object]], device.Bus]


@attrs.define(eq=False, repr=False)
class FirmwareOffer(Offer):
    """A firmware backend for `chips` (names as in "GA100") in `versions` (labels, for display)."""

    chips: Sequence[str]
    versions: Sequence[str]
    open: Callable[[], firmware.FirmwareBackend]


@attrs.define(eq=False, repr=False)
class ClientOffer(Offer):
    """A client driver for `functions`; `needs(identity)` is pure and asked before boot."""

    functions: Sequence[str]
    needs: Callable[[identity.GpuIdentity], BootNeeds]
    open: Callable[[], client.ClientDriver]


@attrs.define(eq=False, repr=False)
class ConfigSection(Offer):
    """The plugin's section `[plugins.NAME]`: an attrs class whose fields are its keys, and `migrate(version, table)` for older files."""

    record: type
    migrate: Callable[[int, dict[str, Any]], dict[str, Any]] | None = None


@attrs.define(eq=False, repr=False)
class InterfaceOffer(Offer):
    """A varlink interface: `text` its description; `observe` and `control` partition its methods; `handler` serves them."""

    text: str
    observe: frozenset[str]
    control: frozenset[str]
    handler: object


@attrs.define(eq=False, repr=False)
class PanelOffer(Offer):
    """Rows for the status screen: `columns` are (key, heading, "left" | "right"); `snapshot()` gives rows of JSON-able values; the core
    draws.

    schema: name and version, as in "nvcore.vgpu/1". order: smaller is higher on the screen.
    """

    schema: str
    columns: Sequence[tuple[str, str, Literal["left", "right"]]]
    order: int
    snapshot: Callable[[], list[dict[str, Any]]]


@attrs.frozen
class Sample:
    """One value of a metric, with its labels."""

    value: float
    labels: Mapping[str, str] = attrs.field(factory=dict)


@attrs.define(eq=False, repr=False)
class MetricOffer(Offer):
    """A metric: `name` as in "nvcore_vgpus", unit in the name."""

    kind: Literal["gauge", "counter"]
    unit: str
    labels: Sequence[str]
    collect: Callable[[], Iterable[Sample]]


@attrs.frozen
class Finding:
    """One result of a doctor check. severity "ok" findings say what was proved."""

    severity: Literal["ok", "note", "warning", "error"]
    text: str
    code: str | None = None
    remedy: str | None = None


@attrs.define(eq=False, repr=False)
class CheckOffer(Offer):
    """A doctor check: `run` looks and says what it found. It runs in a host, and finds nothing where there is nothing to look at."""

    run: Callable[[], Iterable[Finding]]


@attrs.define(eq=False, repr=False)
class ServiceOffer(Offer):
    """Something that runs beside the host (an exporter, a fleet agent). `start(view)` must return; `stop()` must end it within its
    time."""

    start: Callable[[control.HostView], None]
    stop: Callable[[], None]
