"""What a software GPU says of its driver in `nvcore doctor`, and how standing faults are noted."""

from __future__ import annotations

import pytest

from nvcore.api import GENERATIONS
from nvcore.api.clock import SYSTEM
from nvcore.api.offers import HostInfo
from nvcore_softgpu import plugin
from nvcore_softgpu.bus import SoftBus
from nvcore_softgpu.checks import BROKEN_RULE, findings
from nvcore_softgpu.device import SoftDevice
from tests.softgpu.device_kit import Driver, make_card


@pytest.fixture
def bus():
    made = SoftBus()
    yield made
    made.close()


def opened(bus: SoftBus, options: str = "") -> SoftDevice:
    return bus.open(f"softgpu:ga100?vram=1G&address=0000:41:00.0{options}")


def test_a_driver_that_broke_no_rule_is_told_so(bus):
    opened(bus).bars[0].read32(0)
    (found,) = findings(bus.cards())
    assert (found.severity, found.text) == ("ok", "0000:41:00.0: software GA100: its driver broke no rule")


def test_violations_come_first_and_whole_then_what_is_not_known(bus):
    bar0 = opened(bus).bars[0]
    for value in range(7):
        bar0.write32(0x1FA824, value)  # WPR2
    bar0.read32(0x00FF00)
    said = list(findings(bus.cards()))
    assert [found.severity for found in said] == ["error"] * 6 + ["warning"]
    assert "write-to-protected: register 0x1fa824 <- 0x0" in said[0].text and said[5].text.endswith("2 further violations")
    assert said[6].text == "0000:41:00.0: software GA100 does not know register 0xff00"
    assert {found.code for found in said} == {BROKEN_RULE} and all(found.remedy for found in said)


def test_what_a_driver_does_after_a_fault_acted_is_a_note_that_names_the_fault(bus):
    device = opened(bus, "&fault=zero:0x1fa824,read")
    bar0 = device.bars[0]
    bar0.write32(0x1FA824, 0)
    bar0.read32(0x00FF00)
    before, _ = said = list(findings(bus.cards()))
    assert [found.severity for found in said] == ["error", "warning"]  # armed, and not yet acted
    bar0.read32(0x1FA824)
    assert next(findings(bus.cards())) == before  # it did that by itself
    bar0.write32(0x1FA824, 0)  # the same again makes it no smaller
    for value in range(1, 8):
        bar0.write32(0x1FA824, value)
    said = list(findings(bus.cards()))
    assert [found.severity for found in said] == ["error"] + ["note"] * 7
    assert said[0].text.endswith("(x2)") and said[0].remedy == before.remedy and "armed" not in said[0].text
    assert said[6].text.endswith(": 2 further violations")
    for found in said[1:]:
        assert "in which faults that were armed acted (zero)" in found.text
        assert found.remedy == "let the driver run on a software GPU without faults: what it does wrong there is its own"


def test_a_boot_that_an_armed_fault_refused_is_no_fault_of_the_driver():
    device, _ = make_card("GA100", faults=("bad-signature",))
    Driver(device).boot()
    said = list(findings([device.card]))
    device.close()
    assert [(found.severity, found.text.partition("GA100")[2]) for found in said] == [
        ("note", ": injected: booter: bad-signature"),
        ("ok", ", in which faults that were armed acted (bad-signature): its driver broke no rule"),
    ]
    assert said[0].remedy == "nothing: this fault was armed, and it acted"


def test_a_file_that_is_not_what_its_name_says_is_a_matter_of_the_folder(bus, tmp_path):
    folder = tmp_path / "nvidia" / "ga100" / "gsp"
    folder.mkdir(parents=True)
    (folder / "gsp-570.144.bin").write_bytes(b"not an image")
    opened(bus, f"&firmware={tmp_path}")
    said = list(findings(bus.cards()))
    assert [found.severity for found in said] == ["warning", "ok"]
    assert "firmware-file" in said[0].text and said[0].text.endswith("; nothing is compared with the folder")
    assert str(said[0].remedy).startswith("write the folder anew")


def test_a_standing_fault_that_was_armed_for_one_unit_and_another_acts_at_both(bus):
    device = opened(bus, "&fault=scrub-never:gsp&fault=scrub-never:sec2")
    faults = device.card.model.faults
    assert [faults.stands("scrub-never", "", unit) for unit in ("gsp", "sec2", "nvdec")] == [True, True, False]


def test_doctor_asks_the_cards_of_the_hosts_own_bus():
    host = HostInfo("0", GENERATIONS, "embedded", SYSTEM)
    (check,) = plugin.nvcore_doctor_checks(host)
    assert list(check.run()) == []  # no GPU of this kind: the bus was never opened
    (offer,) = plugin.nvcore_buses(host)
    bus = offer.open({})
    try:
        assert list(check.run()) == []
        opened(bus).bars[0].write32(0x1FA824, 1)
        assert [found.severity for found in check.run()] == ["error"]
    finally:
        bus.close()


@pytest.mark.parametrize(
    ("fault", "register"),
    [("chip-unknown", 0), ("gfw-never", 0x118234), ("timer-frozen", 0x9400), ("vbios-missing", 0x300000), ("flush-stuck", 0x70000),
     ("scrub-never:sec2", 0x8400F4)],
)  # fmt: skip
def test_a_standing_fault_is_noted_once_and_only_where_it_acts(bus, fault, register):
    device = opened(bus, f"&fault={fault}")
    device.bars[0].read32(0x1400)
    device.bars[0].read32(0x1100F4)  # the GSP's, which a fault of SEC2 leaves alone
    assert device.model.faults_acted() == []
    for _ in range(3):
        device.bars[0].read32(register)
    assert device.model.faults_acted() == [fault.partition(":")[0]]


def test_a_lost_message_is_noted_when_one_would_be_sent(bus):
    device = opened(bus, "&fault=msi-lost")
    device.bars[0].write32(0xB81640, 1)
    assert device.model.faults_acted() == []
    device.set_bus_master(True)
    device.card.model._message()
    assert device.model.faults_acted() == ["msi-lost"]
