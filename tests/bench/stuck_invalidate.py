"""How long two tenants' fences stay open under an invalidate that never ends: `python tests/bench/stuck_invalidate.py`.

Two toy tenants on a software GA100 behind the real firmware backend, on real time, the limit T of an invalidate being 0.5 s. The second
tenant binds at 0.75 T, behind the stuck one. Prints one JSON object with milliseconds from the first bind to each fence's error, to each
owner's `on_fault`, and to the GPU running again; exit status 1 if an error came later than 2 T.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[2]))  # last: the tests' rig is found here, nvcore stays the installed one

from tests.boots.rig import slot, until

LIMIT = 0.5


def main() -> int:
    """Measure and print."""
    with slot("ga100", "570.144") as card, tempfile.TemporaryDirectory() as folder:
        host = card.host(Path(folder), card.settings(invalidate=LIMIT))
        host.host.start()
        try:
            if host.settle() != "running":
                raise SystemExit(f"no boot: {host.gpu.state.cause}")
            tenants = {"a": host.a.tenant, "b": host.b.tenant}
            host.a.hooks["quiesce"] = lambda: card.inspector.disarm("stuck-invalidate")  # what a reset mends
            card.inspector.arm("stuck-invalidate")
            ends: dict[str, float] = {}
            start = time.monotonic()
            fences: list[Any] = []
            for name, tenant in tenants.items():
                fence = tenant.bind(0, 1)
                fence.add_callback(lambda done, name=name: ends.setdefault(name, time.monotonic()))
                fences.append(fence)
                if name == "a":
                    time.sleep(LIMIT * 0.75)
            until(lambda: len(ends) == 2 and all(tenant.faults for tenant in tenants.values()), "both get errors", LIMIT * 20)
            until(lambda: host.gpu.state.name == "running" and host.gpu.generation == 2, "the GPU runs again", 30.0)
            again = time.monotonic()
        finally:
            host.stop()
        # the first of its kind; the host's clock is the machine's monotonic one
        told = {name: dict(reversed(tenant.journal))["on_fault"] for name, tenant in tenants.items()}
    times = {f"fence_{name}": end for name, end in ends.items()} | {f"told_{name}": when for name, when in told.items()}
    spans = {name: round((when - start) * 1e3, 3) for name, when in times.items()}
    within = all(fence.error is not None for fence in fences) and max(spans.values()) <= 2 * LIMIT * 1e3
    print(json.dumps({
        "what": "two tenants under a stuck invalidate", "limit_milliseconds": LIMIT * 1e3, "milliseconds": spans,
        "running_again_milliseconds": round((again - start) * 1e3, 3), "bar_milliseconds": 2 * LIMIT * 1e3, "within": within,
    }))  # fmt: skip
    return 0 if within else 1


if __name__ == "__main__":
    sys.exit(main())
