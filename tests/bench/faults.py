"""How fast a fault reaches its owner: `python tests/bench/faults.py`. Prints one JSON object. Two toy tenants on a fake GPU, real time.

- delayed reply: another call's reply is ten seconds late; milliseconds from the firmware's event to the owner's `on_fault` (median and
worst of several). Bar: 50 ms. - stuck invalidate: milliseconds until both tenants' fences have their errors, as a multiple of the
invalidate's limit T. Bar: 2 T.

Exit status 1 if a bar is missed.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

from nvcore.api.errors import FirmwareDead
from nvcore.api.events import ChannelFault
from nvcore.gpu.settings import HostSettings
from nvcore.host import Host
from nvcore.testing.fakes import FakeGpu, fake_bus
from nvcore.testing.firmware import FakeBackend, fake_firmware
from nvcore.testing.toys import ToyDriver, toy_client

ROUNDS = 7
FAULT_BAR_MS = 50.0
LIMIT = 0.5


class Pair:
    """A host with two tenants."""

    def __init__(self, folder: Path) -> None:
        self.fake = FakeGpu("fake:bench")
        firmware, self.backend = fake_firmware()
        offer_a, self.a = toy_client("toy-a", "vgpu", engine="COPY0")
        offer_b, self.b = toy_client("toy-b", "graphics", engine="COPY1")
        self.host = Host(
            ["fake:bench"],
            buses=[fake_bus(self.fake)],
            backends=[firmware],
            clients=[offer_a, offer_b],
            state_dir=folder,
            config=HostSettings(invalidate=LIMIT, quiesce=2.0),
        ).start()

    def close(self) -> None:
        """Everything down."""
        self.host.stop(20.0)
        self.fake.scrap()


def wait(claim: Callable[[], bool], limit: float = 20.0) -> None:
    """Poll finely."""
    end = time.perf_counter() + limit
    while not claim():
        if time.perf_counter() > end:
            raise SystemExit("the benchmark itself got stuck")
        time.sleep(0.0001)


def delayed_reply(pair: Pair, backend: FakeBackend, driver: ToyDriver) -> list[float]:
    """Milliseconds of several faults while one call waits for its answer."""
    session, tenant = backend.sessions[-1], driver.tenant
    pair.fake.faults.arm("rpc-delay:10,create-space")

    def slow() -> None:
        try:
            pair.a.tenant.context.run(lambda: pair.a.tenant.grant.create_space(), timeout=30.0)
        except FirmwareDead:
            return

    threading.Thread(target=slow, daemon=True).start()
    wait(lambda: session.waiting > 0)
    found = []
    run = tenant.grant.channels[0]
    for guest in range(run.end - ROUNDS, run.end):  # ids of channels that the core never made: a guest's
        told = len(tenant.faults)
        start = time.perf_counter()
        session.emit(ChannelFault(guest, None, "bench", None, None))
        wait(lambda told=told: len(tenant.faults) > told)  # type: ignore[misc]
        found.append((time.perf_counter() - start) * 1e3)
    return found


def stuck_invalidate(pair: Pair) -> float:
    """Seconds until both fences have their errors."""
    pair.fake.faults.arm("stuck-invalidate")
    start = time.perf_counter()
    fences = [pair.a.tenant.bind(0, 1), pair.b.tenant.bind(0, 1)]
    wait(lambda: all(fence.signalled for fence in fences))
    return time.perf_counter() - start


def main() -> int:
    """Both figures."""
    with tempfile.TemporaryDirectory() as folder:
        pair = Pair(Path(folder))
        try:
            seconds = stuck_invalidate(pair)
            wait(lambda: pair.host.gpus[0].state.name == "running" and pair.host.gpus[0].generation == 2)
            faults = delayed_reply(pair, pair.backend, pair.b)
            pair.backend.sessions[-1].declare_dead("the benchmark is over")
        finally:
            pair.close()
    good = max(faults) <= FAULT_BAR_MS and seconds <= 2 * LIMIT
    result = {
        "delayed reply": {
            "fault to owner, ms": {"median": round(statistics.median(faults), 2), "worst": round(max(faults), 2)},
            "bar": FAULT_BAR_MS,
        },
        "stuck invalidate": {"both fences failed, ms": round(seconds * 1e3, 1), "in limits": round(seconds / LIMIT, 2), "bar": 2.0},
        "ok": good,
    }
    print(json.dumps(result))
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
