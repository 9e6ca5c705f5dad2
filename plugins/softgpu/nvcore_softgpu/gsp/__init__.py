"""The behavioural GSP-RM: everything that the firmware does as a driver sees it, without being firmware.

Owns the one way to make it. Its modules are imported on the first use, so that tables in this package cost nothing to read.
"""

from __future__ import annotations

from nvcore_softgpu.ports import Environment, Gsp

__all__ = ["make_gsp"]


def make_gsp(environment: Environment) -> Gsp:
    """The firmware of one GPU, switched off. `environment`: what it sees of the device."""
    from nvcore_softgpu.gsp.core import BehaviouralGsp

    return BehaviouralGsp(environment)
