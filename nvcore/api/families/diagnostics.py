"""Family "diagnostics": what can be told about a firmware, alive or dead."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from nvcore.api.families import Family
from nvcore.api.marks import may_sleep

__all__ = ["DiagnosticsFamily"]


@may_sleep
class DiagnosticsFamily(Family, Protocol):
    """Version 1. Works on a dead firmware: reads memory and registers only."""

    def logs(self) -> Mapping[str, bytes]:
        """Raw log regions by name, as far as written; an empty value = never written."""

    def queues(self) -> Mapping[str, object]:
        """Both queues: pointers, counters, the last messages by name, JSON-able."""

    def registers(self) -> Mapping[str, int]:
        """The registers worth keeping, by name."""
