"""Which thread asks a client what: as its contract, the authors' page and the maintainers' page say."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nvcore.api.client import Client, ClientContext, ClientDriver, ClientStatus, Function
from nvcore.api.identity import GpuIdentity
from nvcore.api.marks import follows
from nvcore.api.needs import NO_NEEDS, BootNeeds
from nvcore.api.offers import ClientOffer
from nvcore.testing.host import HostKit

ROOT = Path(__file__).resolve().parents[2]
LIFE, CALLBACK, DELIVERY = "life fake:0", "calls fake:0", "deliver 0000:f0:00.0/graphics"

seen: defaultdict[str, set[str]] = defaultdict(set)


def note(what: str) -> None:
    seen[what].add(threading.current_thread().name)


@follows(Client)
class Witness:
    def __init__(self, context: ClientContext) -> None:
        self.context = context

    def on_fault(self, fault: object) -> None:
        note("on_fault")

    def quiesce(self, reason: str, deadline: float, generation: int) -> None:
        note("quiesce")
        self.context.run(lambda: note("run in a callback"), timeout=1.0)

    def resume(self, vram: str, generation: int) -> None:
        note("resume")

    def status(self) -> ClientStatus:
        note("status")
        return ClientStatus("running", "well")

    def remove(self) -> None:
        note("remove")


@follows(ClientDriver)
class Driver:
    name = "witness"

    def match(self, function: Function) -> bool:
        note("match")
        return True

    def probe(self, context: ClientContext) -> Any:
        note("probe")
        return Witness(context)


def needs(identity: GpuIdentity) -> BootNeeds:
    note("needs")
    return NO_NEEDS


def opened() -> Driver:
    note("open")
    return Driver()


@pytest.fixture
def threads(nvcore_host: Callable[..., HostKit]) -> dict[str, set[str]]:
    """What a client was asked through a whole life, and on which threads."""
    seen.clear()
    kit = nvcore_host(ClientOffer("witness", "remembers threads", ("graphics",), needs, opened))
    kit.client("witness").context.run(lambda: note("run"), timeout=5.0)
    kit.gpu_fault()
    kit.gpu.attachments[0].status()
    kit.host.stop()
    return dict(seen)


def test_each_call_has_its_thread(threads: dict[str, set[str]]) -> None:
    assert {what: sorted(names) for what, names in threads.items()} == {
        **{what: [LIFE] for what in ("needs", "open", "match", "run")},
        **{what: [CALLBACK] for what in ("probe", "quiesce", "resume", "remove", "run in a callback")},
        "on_fault": [DELIVERY],
        "status": [threading.current_thread().name],
    }


def test_the_pages_say_so(threads: dict[str, set[str]]) -> None:
    words = {LIFE: "life-cycle thread", CALLBACK: "callback thread", DELIVERY: "delivery thread"}
    page = (ROOT / "docs/plugin-authors.md").read_text().splitlines()
    for contract, who in ((Client, "client"), (ClientDriver, "driver")):
        for name in ("on_fault", "quiesce", "resume", "remove") if who == "client" else ("match", "probe"):
            (thread,) = threads[name]
            (row,) = [line for line in page if line.startswith(f"| `{who}.{name}(")]
            assert words[thread] in row.split("|")[2]
            assert words[thread] in " ".join((getattr(contract, name).__doc__ or "").lower().split())
    table = (ROOT / "docs/architecture.md").read_text()
    assert "| callback | GPU | run a client's probe, quiesce, resume, remove" in table
    assert "`life SOURCE`, `calls SOURCE`, `receive SOURCE` and `deliver FUNCTION`" in table
