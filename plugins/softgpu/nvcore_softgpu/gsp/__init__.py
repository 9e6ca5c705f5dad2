"""The behavioural GSP-RM: everything that the firmware does as a driver sees it, without being firmware."""

from __future__ import annotations

from nvcore_softgpu.gsp.core import BehaviouralGsp

__all__ = ["BehaviouralGsp"]
