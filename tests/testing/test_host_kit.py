"""The host fixture: hosts of chosen offers and modules on fakes, and what a test is failed for."""

from __future__ import annotations

import importlib.util
import re
import threading
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from nvcore.api.errors import NotFoundError, UsageError
from nvcore.gpu.settings import HostSettings
from nvcore.testing.clock import VirtualClock
from nvcore.testing.contracts import BrokenContract
from nvcore.testing.fakes import FakeGpu, fake_bus
from nvcore.testing.firmware import fake_firmware
from nvcore.testing.host import HostKit, until
from nvcore.testing.toys import toy_client

from .test_pytest_plugin import outcome

EXAMPLE = Path(__file__).resolve().parents[2] / "examples/toy-firmware/toy_firmware.py"
Make = Callable[..., HostKit]


def test_without_anything_a_fake_boots_and_all_is_well(nvcore_host: Make) -> None:
    kit = nvcore_host()
    assert kit.gpu.state.name == "running" and kit.problems() == []
    assert kit.function("graphics").published and not kit.function("vgpu").published


def test_a_client_is_found_by_name_and_goes_through_every_rung(nvcore_host: Make) -> None:
    offer, driver = toy_client("toy", "vgpu")
    kit = nvcore_host(offer)
    tenant = kit.client("toy")
    assert tenant is driver.tenant
    kit.channel_fault(tenant.channel.channel, "COPY0")
    kit.grant_fault("toy")
    kit.gpu_fault()
    told = [what for what, _ in tenant.journal if what.startswith(("quiesce", "resume"))]
    assert [what.rsplit(" ", 1)[0] if what[0] == "r" else what for what in told] == [
        "quiesce channel-fault", "resume kept", "quiesce grant-reset", "resume lost", "quiesce gpu-reset", "resume lost",
    ]  # fmt: skip
    assert kit.problems() == []
    kit.lose()
    assert tenant.journal[-1][0] == "remove" and kit.gpu.state.name == "lost"
    kit.fake._gone = False
    kit.fake.firmware_running = False


def test_a_client_of_two_functions_is_asked_for_by_kind(nvcore_host: Make) -> None:
    offer, driver = toy_client("toy", "vgpu")
    offer.functions, driver.match = ("vgpu", "graphics"), lambda function: function.kind in ("vgpu", "graphics")
    kit = nvcore_host(offer)
    found = {kind: kit.client("toy", kind=kind) for kind in ("vgpu", "graphics")}
    assert [client.context.function.kind for client in found.values()] == ["vgpu", "graphics"]
    with pytest.raises(UsageError, match="say which: kind="):
        kit.client("toy")
    kit.grant_fault("toy", kind="graphics")
    assert [len(client.faults) for client in found.values()] == [0, 1]
    with pytest.raises(NotFoundError):
        kit.client("toy", kind="display")


def test_a_virtual_clock_drives_the_host(nvcore_host: Make) -> None:
    clock = VirtualClock()
    kit = nvcore_host(clock=clock)
    began = kit.gpu.state.since
    clock.advance(5.0)
    assert began == 0.0 and clock.now() == 5.0 and kit.gpu.state.name == "running"


def test_two_gpus_are_two_and_a_bus_of_ones_own_brings_its_own(nvcore_host: Make) -> None:
    assert [gpu.name for gpu in nvcore_host(gpus=2).host.gpus] == ["0000:f0:00.0", "0000:f1:00.0"]
    mine = FakeGpu("fake:mine")
    kit = nvcore_host(fake_bus(mine), sources=["fake:mine"])
    assert kit.gpu.source == "fake:mine" and kit.fakes == []
    kit.close()
    mine.scrap()


def test_modules_are_wired_as_a_host_would_and_take_their_configuration(nvcore_host: Make) -> None:
    spec = importlib.util.spec_from_file_location("toy_firmware_for_kit", EXAMPLE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    kit = nvcore_host(module)
    assert kit.gpu.state.name == "running" and kit.gpu.boot_report is not None and kit.gpu.boot_report.image.location == "built in"
    with pytest.raises(UsageError):
        _ = kit.session
    other: Any = nvcore_host(module, config={"toy_firmware_for_kit": module.Backend(("GA102",))}, chip="GA102")
    assert other.gpu.identity.chip.name == "GA102" and other.backend is None


def test_a_halt_that_the_firmware_itself_tells_reaches_the_host(nvcore_host: Make) -> None:
    spec = importlib.util.spec_from_file_location("toy_firmware_for_halt", EXAMPLE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    kit = nvcore_host(module)
    kit.fake.register_write(module.MAILBOX, 2)
    kit.fake.raise_vector(module.VECTOR)
    until(lambda: kit.gpu.generation == 2 and kit.gpu.state.name == "running", "the firmware runs again")
    assert kit.problems() == []


def test_two_backends_for_one_chip_are_told_by_the_gpu(nvcore_host: Make) -> None:
    kit = nvcore_host(fake_firmware()[0], fake_firmware(name="other")[0])
    assert kit.gpu.state.name == "failed" and "fake-firmware" in kit.gpu.state.cause and "other" in kit.gpu.state.cause


def test_what_is_not_there_is_named(nvcore_host: Make) -> None:
    kit = nvcore_host()
    with pytest.raises(NotFoundError, match="nobody drives nothing"):
        kit.client("nobody")
    with pytest.raises(NotFoundError, match="holds no grant"):
        kit.grant_fault("nobody")
    with pytest.raises(NotFoundError, match="nobody holds channel 400"):
        kit.channel_fault(400)
    with pytest.raises(AssertionError, match=r"not within 0.01 s: never"):
        until(lambda: False, "never", 0.01)


@pytest.mark.parametrize("fault", ["grant_fault", "gpu_fault", "lose"])
def test_a_client_whose_on_fault_waits_is_told_so_at_once(fault: str, nvcore_host: Make) -> None:
    offer, driver = toy_client("toy", "graphics")
    release = threading.Event()
    driver.hooks["on_fault"] = lambda: release.wait(20.0)
    kit = nvcore_host(offer, settings=HostSettings(quiesce=0.3, boot=20.0, call=5.0, settle=0.0))
    said = r"toy breaks client-on-fault: .*waited: missed-deadline: toy: on_fault did not end"
    with pytest.raises(BrokenContract, match=said) as caught:
        getattr(kit, fault)(*(["toy"] if fault == "grant_fault" else []))
    release.set()
    driver.tenant.stop()
    assert "nvcore" not in str(caught.value).partition("still is")[2], "the place is the plugin's"


WAITS = """
import threading, time
from nvcore.locks import start_thread

class Mine:
    def on_fault(self, fault):
        time.sleep(4)

def test_it():
    start_thread("deliver mine", lambda: Mine().on_fault(None))
"""


def test_a_thread_left_behind_in_on_fault_is_said_to_be_there(tmp_path: Path) -> None:
    status, text = outcome(tmp_path, WAITS)
    assert status == 1, text
    assert re.search(r"thread left behind: deliver mine in on_fault at .*test_it.py:7, which must wait for nothing", text), text


METRICS = """
from nvcore.api import hookimpl
from nvcore.api.offers import MetricOffer, Sample

@hookimpl
def nvcore_metrics(host):
    sample = Sample(2, {"b": "y", "a": "x"})
    plain = MetricOffer("up", "s", "counter", "", (), lambda: [Sample(1.5)])
    return [plain, MetricOffer("m", "s", "gauge", "x", ("a", "b"), lambda: [sample]), MetricOffer("n", "s", "gauge", "x", (), lambda: BAD)]
"""


def test_metrics_of_modules_are_shown_by_name_and_labels(nvcore_host: Make, tmp_path: Path) -> None:
    module: Any = ModuleType("with_metrics")
    exec(METRICS.replace("BAD", "[]"), vars(module))
    assert nvcore_host(module).metrics() == {"up": 1.5, 'm{a="x",b="y"}': 2}
    exec(METRICS.replace("BAD", "[sample]"), vars(module))
    with pytest.raises(BrokenContract, match="a sample of n has labels b, a, declared are none"):
        nvcore_host(module).metrics()


LEAKS = {
    "host memory": ("kit.fake.allocate_dma(0x1000, label='mine')\n    kit.fake.close = lambda: None", "host memory left mapped: mine"),
    "a client that hangs": ("hang(kit)", "hangs: toy: remove"),
}


@pytest.mark.parametrize("name", LEAKS)
def test_a_test_is_failed_for_what_its_host_left(name: str, tmp_path: Path) -> None:
    body, said = LEAKS[name]
    status, text = outcome(tmp_path, HEAD + f"def test_it(nvcore_host):\n    kit = start(nvcore_host)\n    {body}\n")
    assert status == 1 and said in text, text


HEAD = """
import threading, pytest
from nvcore.gpu.settings import HostSettings
from nvcore.testing.toys import toy_client
END = threading.Event()
offer, driver = toy_client("toy", "graphics")

def start(nvcore_host):
    return nvcore_host(offer, settings=HostSettings(quiesce=1.0, call=0.2))

def hang(kit):
    driver.hooks["remove"] = lambda: END.wait(1.0)
"""
