"""Our own backend and client, held to the contracts that strangers are held to, on the software GPU with synthetic images."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nvcore.api.control import Call, Caller
from nvcore.api.device import Device
from nvcore.api.needs import BootNeeds
from nvcore.api.offers import FirmwareOffer
from nvcore.testing.contracts import check_backend, check_client
from nvcore.testing.modules import offers_of
from nvcore_fw_gsp import plugin as fw_gsp
from nvcore_fw_gsp.backend import GspBackend
from nvcore_softgpu import plugin as softgpu
from nvcore_softgpu.bus import SoftBus
from nvcore_softgpu.device import Inspector
from nvcore_softgpu.images.synthetic import write_images
from nvcore_vfio import operator as vfio_operator
from nvcore_vfio import plugin as vfio


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("firmware")
    write_images(folder)
    return folder


def gsp(images: Path) -> FirmwareOffer:
    """The offer of fw_gsp, with these images."""
    (offer,) = offers_of(fw_gsp)["nvcore_firmware_backends"]
    return FirmwareOffer(offer.name, offer.summary, offer.chips, offer.versions, lambda: GspBackend(lambda: [str(images / "nvidia")]))


@pytest.fixture
def bus() -> Iterator[SoftBus]:
    made = SoftBus()
    yield made
    made.close()


@pytest.mark.parametrize(
    ("chip", "version", "needs"),
    [
        ("GA100", "570.144", BootNeeds()),
        ("GA100", "570.144", BootNeeds(vgpu_host=True, virtual_functions=16)),
        ("GA100", "535.113.01", BootNeeds()),
        ("GH100", "570.144", BootNeeds()),
    ],
    ids=["GA100", "GA100-vgpu", "GA100-535", "GH100"],
)
def test_fw_gsp_keeps_the_contract_of_a_backend(images: Path, bus: SoftBus, chip: str, version: str, needs: BootNeeds) -> None:
    source = f"softgpu:{chip.lower()}?vram=4G&firmware={images}"
    violations: set[str] | None = None

    def leave(device: Device) -> None:
        nonlocal violations
        (card,) = bus.cards()
        violations = {one.name for one in Inspector(card).violations}
        bus.remove(source)

    check_backend(gsp(images), chip=chip, device=lambda: bus.open(source), leave=leave, version=version, needs=needs, time_scale=0.05)
    assert violations == set()


def test_vfio_keeps_the_contract_of_a_client_with_vgpus_running(images: Path) -> None:
    offers = offers_of(vfio, vfio_operator)
    (offer,), (interface,) = offers["nvcore_client_drivers"], offers["nvcore_control_interfaces"]
    handler: Any = interface.handler
    sources = [f"softgpu:ga100?vram=40G&name=contract{number}&firmware={images}" for number in range(2)]
    names = (f"web-{number}" for number in itertools.count())

    def call(method: str, **parameters: object) -> Any:
        return getattr(handler, method)(Call(f"io.nvcore.Vgpu.{method}", parameters, Caller(0, 0, 0, True), False))

    def create(client: Any) -> None:
        call("Create", type="A100-4C", name=next(names))

    def count(client: Any) -> None:
        assert {row["state"] for row in call("List")["vgpus"]} <= {"running"}

    check_client(offer, use=count, busy=create, chip="GA100", others=[softgpu, gsp(images)], sources=sources, deadline=5.0)
