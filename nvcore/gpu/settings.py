"""Limits and choices of one host, and of one GPU in it, as the core uses them.

Plain classes with defaults: the daemon fills them from its configuration, tests from arguments. Seconds on the host's clock.
"""

from __future__ import annotations

from collections.abc import Mapping


class GpuSettings:
    """One source. version: the firmware version to use, None = the backend's preferred. backend: the backend to use when two claim the
    chip.

    time_scale: multiplies every limit of the backend (software models are slow).
    """

    def __init__(self, *, version: str | None = None, backend: str | None = None, time_scale: float = 1.0) -> None:
        self.version, self.backend, self.time_scale = version, backend, time_scale


class HostSettings:
    """The whole host.

    quiesce: time a client has between a fault and having left the hardware. invalidate: limit of one invalidate. boot: limit of one boot,
    for those who wait for it. call: limit of probe, resume and remove. settle: how long a GPU must run after a reset before a new fault of
    it is a new incident, whose rungs may be tried again. gpus: by source. clients: configuration record by client name; buses: options by
    scheme.
    """

    def __init__(
        self, *, quiesce: float = 5.0, invalidate: float = 2.0, boot: float = 300.0, call: float = 60.0, settle: float = 60.0,
        gpus: Mapping[str, GpuSettings] | None = None, clients: Mapping[str, object] | None = None,
        buses: Mapping[str, Mapping[str, object]] | None = None,
    ) -> None:  # fmt: skip
        self.quiesce, self.invalidate, self.boot, self.call, self.settle = quiesce, invalidate, boot, call, settle
        self.gpus, self.clients, self.buses = dict(gpus or {}), dict(clients or {}), dict(buses or {})

    def gpu(self, source: str) -> GpuSettings:
        """The settings of one source."""
        return self.gpus.get(source) or GpuSettings()
