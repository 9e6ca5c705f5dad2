"""How long fences stay open when the firmware dies at a moment of an update: `python tests/bench/halted_firmware.py`.

Two toy tenants on a software GA100 behind the real firmware backend, on real time, the limit T of an invalidate being 0.5 s. For each of
the three places a fresh host: an invalidate is stuck, an update of each tenant waits behind it and one of them waits for its channel; then
the firmware halts. Prints one JSON object with milliseconds from the halt to each fence's error, to each owner's `on_fault`, and to the GPU
running again; exit status 1 if an error came later than 2 T.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[2]))  # last: the tests' rig is found here, nvcore stays the installed one

from tests.boots.rig import HALTS, Unfinished, halt, slot, until

LIMIT = 0.5


def one_place(place: str) -> tuple[dict[str, float], bool]:
    """(milliseconds from the halt, whether every fence has its error)."""
    with slot("ga100", "570.144") as card, tempfile.TemporaryDirectory() as folder:
        host = card.host(Path(folder), card.settings(invalidate=LIMIT))
        host.host.start()
        try:
            if host.settle() != "running":
                raise SystemExit(f"no boot: {host.gpu.state.cause}")
            work = Unfinished(host)
            start = time.monotonic()  # the host's clock
            halt(host, place)
            until(lambda: len(work.ends) == len(work.fences), "all fences signal", LIMIT * 20)
            until(lambda: host.gpu.state.name == "running" and host.gpu.generation == 2, "the GPU runs again", 30.0)
            again = time.monotonic()
            told = {f"told_{tenant.name}": dict(reversed(tenant.journal))["on_fault"] for tenant in host.tenants()}  # the first of its kind
        finally:
            host.stop()
    times = {**work.ends, **told, "running_again": again}
    return {name: round((when - start) * 1e3, 3) for name, when in times.items()}, all(fence.error is not None for fence in work.fences)


def main() -> int:
    """Measure and print."""
    spans: dict[str, dict[str, float]] = {}
    within = True
    for place in HALTS:
        spans[place], failed = one_place(place)
        within &= failed and all(ms <= 2 * LIMIT * 1e3 for name, ms in spans[place].items() if name != "running_again")
    print(json.dumps({
        "what": "fences of two tenants when the firmware halts at a moment of an update", "limit_milliseconds": LIMIT * 1e3,
        "milliseconds": spans, "bar_milliseconds": 2 * LIMIT * 1e3, "within": within,
    }))  # fmt: skip
    return 0 if within else 1


if __name__ == "__main__":
    sys.exit(main())
