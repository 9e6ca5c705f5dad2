"""The toy firmware on a fake device: what a backend author's own tests look like."""

import pytest
import toy_firmware

from nvcore.api.errors import ConflictError
from nvcore.testing.contracts import check_backend, check_plugin_module
from nvcore.testing.firmware import fake_firmware
from nvcore.testing.host import until


def test_the_plugin_and_its_backend_keep_their_contracts():
    """Every clause, on the fake's own chip and on another that the configuration names."""
    (offer,) = check_plugin_module(toy_firmware)["nvcore_firmware_backends"]
    assert offer.chips == ("TU102",)
    check_backend(offer)
    (other,) = check_plugin_module(toy_firmware, config=toy_firmware.Backend(("GA100",)))["nvcore_firmware_backends"]
    assert other.chips == ("GA100",)
    check_backend(other)


def test_it_boots_the_fake_and_says_what_it_cannot_offer(nvcore_host):
    """The GPU runs; no function is published, and each has its reason."""
    host = nvcore_host(toy_firmware)
    assert host.gpu.state.name == "running" and host.gpu.boot_report.image.location == "built in"
    assert host.function("graphics").reason == "the firmware has no family memory and channel"
    assert host.problems() == []


def test_a_halt_is_told_and_cured(nvcore_host):
    """The mailbox says that it has halted: the core starts it again."""
    host = nvcore_host(toy_firmware)
    host.fake.register_write(toy_firmware.MAILBOX, 2)
    host.fake.raise_vector(toy_firmware.VECTOR)
    until(lambda: host.gpu.generation == 2 and host.gpu.state.name == "running", "the second start")
    assert host.fake.register_read(toy_firmware.MAILBOX) == 1 and host.problems() == []
    assert [event.kind for event in host.host.events.since()].count("recovery") == 1


@pytest.mark.parametrize("chip", ["TU102", "GA100"])
def test_a_chip_that_somebody_else_claims_is_a_conflict(nvcore_host, chip):
    """Neither backend is chosen; both are named, with the way to choose."""
    other, _ = fake_firmware(chip, name="other")
    host = nvcore_host(other, toy_firmware, config={"toy_firmware": toy_firmware.Backend((chip,))}, chip=chip)
    state = host.gpu.state
    assert state.name == "failed" and state.code == ConflictError.code
    assert "other" in state.cause and "toy-firmware" in state.cause and "select only one" in state.remedy
