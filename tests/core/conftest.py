"""A rig: fakes, toy tenants and a host, on a real or a virtual clock."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from nvcore.api.clock import SYSTEM, Clock
from nvcore.gpu.life import Gpu
from nvcore.gpu.settings import HostSettings
from nvcore.host import Host
from nvcore.testing.fakes import FakeGpu, fake_bus
from nvcore.testing.firmware import FakeBackend, FakeSession, fake_firmware
from nvcore.testing.toys import ToyDriver, toy_client


def until(claim: Callable[[], bool], what: str | Callable[[], str], limit: float = 5.0) -> None:
    """Real time: wait for other threads."""
    end = time.monotonic() + limit
    while not claim():
        assert time.monotonic() < end, what if isinstance(what, str) else what()
        time.sleep(0.002)


class Rig:
    """One host with fakes and two toy tenants, a on vgpu and b on graphics."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.fakes = [FakeGpu("fake:one")]
        self.firmware, self.backend = fake_firmware()
        self.offer_a, self.a = toy_client("toy-a", "vgpu", engine="COPY0")
        self.offer_b, self.b = toy_client("toy-b", "graphics", engine="COPY1")
        self.clients = [self.offer_a, self.offer_b]
        self.backends = [self.firmware]
        self.settings = HostSettings(quiesce=5.0, boot=20.0)
        self.clock: Clock = SYSTEM
        self.host: Host | None = None

    def start(self) -> Host:
        self.host = Host(
            [fake.source for fake in self.fakes],
            buses=[fake_bus(*self.fakes)],
            backends=self.backends,
            clients=self.clients,
            clock=self.clock,
            state_dir=self.folder,
            config=self.settings,
        )
        return self.host.start()

    @property
    def fake(self) -> FakeGpu:
        return self.fakes[0]

    @property
    def gpu(self) -> Gpu:
        assert self.host is not None
        return self.host.gpus[0]

    @property
    def session(self) -> FakeSession:
        return self.backend.sessions[-1]

    def running(self, generation: int) -> None:
        until(lambda: self.gpu.state.name == "running" and self.gpu.generation >= generation, f"generation {generation}")

    def states(self) -> list[str]:
        assert self.host is not None
        return [event.text.split(":")[0] for event in self.host.events.since() if event.kind == "state"]

    def doctor_ok(self) -> None:
        assert self.host is not None
        findings = self.host.doctor()
        assert [finding for finding in findings if finding.severity not in ("ok", "note")] == []

    def close(self) -> None:
        if self.host is not None:
            self.host.stop(10.0)
        for driver in (self.a, self.b):
            for tenant in driver.tenants:
                tenant.stop()
        for fake in self.fakes:
            fake.scrap()


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    made = Rig(tmp_path)
    yield made
    made.close()


__all__ = ["FakeBackend", "Rig", "ToyDriver", "until"]
