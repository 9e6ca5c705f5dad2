"""What is said of a boot that failed, and what the next one finds of it."""

from __future__ import annotations

from nvcore.api.errors import FormatError
from nvcore.api.firmware import OpenContext
from nvcore.testing.firmware import FakeSession
from tests.core.conftest import Rig, until


def boot_lines(rig: Rig) -> list[str]:
    assert rig.host is not None
    return [event.text for event in rig.host.events.since() if event.kind == "boot"]


def test_the_usual_remedy_of_a_failed_boot_names_commands_that_exist(rig: Rig) -> None:
    def refuses(context: object) -> object:
        raise FormatError("the image is cut short", expected="4096 bytes", seen="12 bytes")

    rig.backend.open = refuses  # type: ignore[assignment, method-assign]
    rig.start()
    name = "0000:f0:00.0"
    assert rig.gpu.state.remedy == f"see the boot report (nvcore gpus show {name}), then: nvcore gpus retry {name}"
    assert rig.gpu.state.cause == "the image is cut short; expected 4096 bytes; seen 12 bytes"


def test_what_the_backend_says_to_do_goes_before_the_usual_remedy_of_a_failed_boot(rig: Rig) -> None:
    class Cut(FormatError):
        usual_remedy = "fetch the file again"

    errors = iter([FormatError("the image is cut short", remedy="fetch it whole"), Cut("the image is cut short")])

    def refuses(context: object) -> object:
        raise next(errors)

    rig.backend.open = refuses  # type: ignore[assignment, method-assign]
    host = rig.start()
    assert rig.gpu.state.remedy == "fetch it whole"
    host.retry("fake:one")
    assert rig.gpu.state.remedy == "fetch the file again"


def test_the_record_of_a_failed_boot_goes_with_the_unload_that_worked(rig: Rig) -> None:
    rig.fake.faults.arm("boot-fails:the ROM is empty")
    host = rig.start()
    assert rig.gpu.state.name == "failed" and rig.gpu.unload_report is not None and rig.gpu.unload_report.clean
    assert list((rig.folder / "gpus").iterdir()) == []
    host.retry("fake:one")
    assert rig.gpu.state.name == "running" and not any("left" in line for line in boot_lines(rig))


def test_what_a_failed_boot_of_this_process_left_is_not_called_another_processes(rig: Rig) -> None:
    rig.fake.faults.arm("boot-fails:the ROM is empty")
    rig.fake.faults.arm("unload-dirty")
    host = rig.start()
    assert rig.gpu.state.name == "failed" and len(list((rig.folder / "gpus").iterdir())) == 1
    host.retry("fake:one")
    assert rig.gpu.state.name == "running" and "a firmware that an earlier boot left was taken down" in boot_lines(rig)


def test_the_record_of_a_restart_that_failed_and_left_its_firmware_is_kept(rig: Rig) -> None:
    host = rig.start()
    start = rig.backend.open

    def fails_and_leaves_it(context: OpenContext) -> FakeSession:
        rig.fake.faults.arm("boot-fails:no power")
        rig.fake.faults.arm("unload-dirty")
        return start(context)

    rig.backend.open = fails_and_leaves_it  # type: ignore[method-assign]
    rig.session.halt("dies")
    until(lambda: rig.gpu.state.name == "lost", "lost")
    assert rig.gpu.unload_report is not None and not rig.gpu.unload_report.clean
    assert rig.fake.firmware_running and len(list((rig.folder / "gpus").iterdir())) == 1
    rig.backend.open = start  # type: ignore[method-assign]
    host.retry("fake:one")
    assert rig.gpu.state.name == "running" and "a firmware that an earlier boot left was taken down" in boot_lines(rig)


def test_a_firmware_that_came_up_is_unloaded_whatever_the_boot_dies_of_then(rig: Rig) -> None:
    def broken(self: object) -> object:
        raise KeyError("a bug in read")

    start = rig.backend.open

    def opens(context: OpenContext) -> FakeSession:
        session = start(context)
        session.family("inventory").read = broken.__get__(session)  # type: ignore[union-attr]
        return session

    rig.backend.open = opens  # type: ignore[method-assign]
    rig.start()
    assert rig.gpu.state.name == "failed" and "a bug in read" in rig.gpu.state.cause
    assert not rig.fake.firmware_running and rig.fake.log[-2:] == ["unload", "bus master off"]
    rig.backend.open = start  # type: ignore[method-assign]
    assert rig.host is not None and rig.host.retry("fake:one").state.name == "running"
