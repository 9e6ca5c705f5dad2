"""The plugin host: whatever a plugin does, the host runs, and the plugin is listed with reason and remedy."""

from __future__ import annotations

import json
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from nvcore.api.errors import ConfigError, NotFoundError, NotRunningError
from nvcore.config.files import load
from nvcore.plugins.compare import changes_on_disk
from nvcore.plugins.host import PluginHost, RequiredPluginError
from nvcore.plugins.index import scan
from nvcore.plugins.select import Selection
from tests.plugins.building import CLIENT, HOST, OBSERVER, SECTION, distribution, plugin

GOOD = CLIENT.format(name="good", claim="toy-good")
VIEW: Any = SimpleNamespace()


def loaded(**more: Any) -> PluginHost:
    host = PluginHost("doctor", **more)
    host.load()
    return host


def row(host: PluginHost, name: str) -> dict[str, Any]:
    return next(dict(one) for one in host.states() if one["name"] == name)


def with_good(site: Path) -> None:
    plugin(site, "good", GOOD, family="client")


def test_a_good_plugin_is_registered_and_its_offers_carry_its_name(site: Path) -> None:
    with_good(site)
    host = loaded()
    (offer,) = host.collect("nvcore_client_drivers")
    assert offer.plugin == "good" and list(offer.functions) == ["toy-good"]
    good = row(host, "good")
    assert (good["state"], good["hooks"], good["offers"]) == ("registered", ["nvcore_client_drivers"], 1)
    assert good["import_ms"] > 0
    json.dumps(host.states())
    assert not host.partial()


BROKEN = {
    "raises": ("1 / 0", "NVC-1101", "ZeroDivisionError"),
    "exits": ("import sys; sys.exit(3)", "NVC-1102", "SystemExit: 3"),
    "lacks": ("import absent_library", "NVC-1103", "absent_library, which is not installed"),
    "misspelt": (
        "from nvcore.api import hookimpl\n@hookimpl\ndef nvcore_client_driver(host): return []",
        "NVC-1107",
        "did you mean nvcore_client_drivers?",
    ),
    "unmarked": ("from nvcore.api import hookimpl\ndef nvcore_client_drivers(host): return []", "NVC-1107", "not marked"),
    "hook": ("from nvcore.api import hookimpl\n@hookimpl\ndef nvcore_client_drivers(host): raise KeyError('x')", "NVC-1108", "KeyError"),
    "quits": ("from nvcore.api import hookimpl\n@hookimpl\ndef nvcore_client_drivers(host): raise SystemExit", "NVC-1108", "SystemExit"),
    "wrong": ("from nvcore.api import hookimpl\n@hookimpl\ndef nvcore_client_drivers(host): return [3]", "NVC-1108", "returned int"),
    "argument": ("from nvcore.api import hookimpl\n@hookimpl\ndef nvcore_client_drivers(device): return []", "NVC-1113", "device"),
    "stranger": ("from nvcore.api import hookimpl\n@hookimpl\ndef nvcore_buses(host): return []", "NVC-1113", "family device"),
    "wraps": (
        "from nvcore.api import hookimpl\n@hookimpl(wrapper=True)\ndef nvcore_client_drivers(host): return (yield)",
        "NVC-1113",
        "wrapper",
    ),
    "empty": ("", "NVC-1113", "implements no hook"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_plugin_is_listed_with_reason_and_remedy_and_the_others_run(site: Path, name: str) -> None:
    source, code, words = BROKEN[name]
    plugin(site, name, source, family="client")
    with_good(site)
    host = loaded()
    broken = row(host, name)
    assert (broken["state"], broken["code"]) == ("failed", code)
    assert words in broken["reason"] and broken["remedy"]
    assert row(host, "good")["state"] == "registered"
    assert [offer.plugin for offer in host.collect("nvcore_client_drivers")] == ["good"]
    assert host.partial()
    host.start(VIEW)
    assert row(host, "good")["state"] == "started"
    assert host.teardown() is None


def test_where_an_import_failed_is_file_and_line(site: Path) -> None:
    plugin(site, "raises", "\n\n1 / 0")
    plugin(site, "muddled", "\ndef f(:\n    pass")
    host = loaded()
    assert f"{site}/toy_raises.py:3" in row(host, "raises")["reason"]
    assert f"{site}/toy_muddled.py:2" in row(host, "muddled")["reason"] and "importlib" not in row(host, "muddled")["reason"]


def test_a_reason_is_one_line_whatever_the_exception_says(site: Path) -> None:
    plugin(site, "raises", "raise ValueError('one\\nvfio  started  0.1.0\\n' + 'x' * 9999)")
    reason = row(loaded(), "raises")["reason"]
    assert "\n" not in reason and len(reason) == 600


def test_a_module_that_the_metadata_names_and_nobody_shipped_is_told_from_a_missing_requirement(site: Path) -> None:
    distribution(site, "toy-hollow", points={"nvcore.client.v1": {"hollow": "toy_hollow.part"}})
    hollow = row(loaded(), "hollow")
    assert hollow["code"] == "NVC-1103" and hollow["remedy"] == "pip install --force-reinstall toy-hollow"


def test_an_interrupt_from_the_keyboard_during_an_import_is_the_hosts(site: Path) -> None:
    plugin(site, "stop", "import os, signal, time; os.kill(os.getpid(), signal.SIGINT); time.sleep(0.05)")
    with pytest.raises(KeyboardInterrupt):
        loaded()
    for thread in [thread for thread in threading.enumerate() if "nvcore-watched" in thread.name]:
        thread.join(5)


def test_a_plugin_that_raises_what_a_keyboard_raises_fails_alone(site: Path) -> None:
    plugin(site, "stop", "raise KeyboardInterrupt")
    with_good(site)
    host = loaded()
    assert (row(host, "stop")["state"], row(host, "stop")["code"]) == ("failed", "NVC-1101")
    assert row(host, "stop")["reason"] == f"import of stop raised KeyboardInterrupt: at {site}/toy_stop.py:1"
    assert row(host, "good")["state"] == "registered"


@pytest.mark.parametrize("raised", ["asyncio.CancelledError('x')", "GeneratorExit('x')", "type('Own', (BaseException,), {})('x')"])
def test_a_plugin_that_raises_what_is_no_exception_fails_with_its_place(site: Path, raised: str) -> None:
    plugin(site, "odd", f"import asyncio\nraise {raised}", family="client")
    plugin(site, "late", OBSERVER.format(started=f"import asyncio; raise {raised}", stopping="pass"))
    with_good(site)
    host = loaded()
    assert (row(host, "odd")["state"], row(host, "odd")["code"]) == ("failed", "NVC-1101") and host.partial()
    assert f": x at {site}/toy_odd.py:2" in row(host, "odd")["reason"] and row(host, "odd")["remedy"]
    host.start(VIEW)
    assert (row(host, "late")["state"], row(host, "late")["code"]) == ("failed", "NVC-1112") and ": x at " in row(host, "late")["reason"]
    assert row(host, "good")["state"] == "started" and host.teardown() is None


def test_a_plugin_whose_import_hangs_is_named_and_abandoned_and_does_not_come_back(site: Path) -> None:
    plugin(site, "slow", "import sys, time\nwhile not hasattr(sys, 'toy_slow_may_go'): time.sleep(0.01)")
    with_good(site)
    host = PluginHost(limit=0.05)
    try:
        host.load(index=scan([str(site)]))
        slow = row(host, "slow")
        assert (slow["state"], slow["code"]) == ("failed", "NVC-1109") and "import of slow did not return within 0.3 s" in slow["reason"]
        assert row(host, "good")["state"] == "registered"
    finally:
        sys.toy_slow_may_go = True  # type: ignore[attr-defined]
        for thread in [thread for thread in threading.enumerate() if "import of slow" in thread.name]:
            thread.join(5)
        del sys.toy_slow_may_go  # type: ignore[attr-defined]
    assert row(host, "slow")["state"] == "failed"
    host.teardown()


@pytest.mark.parametrize(("generation", "remedy", "side"), [(2, "nvcore", "host is the older"), (0, "toy-other", "plugin is the older")])
def test_another_generation_is_incompatible_and_never_imported(site: Path, generation: int, remedy: str, side: str) -> None:
    plugin(site, "other", "raise SystemExit('imported')", family="client", generation=generation)
    with_good(site)
    other = row(loaded(), "other")
    assert (other["state"], other["code"], other["import_ms"]) == ("incompatible", "NVC-1104", None)
    assert side in other["reason"] and other["remedy"] == f"pip install --upgrade {remedy}"


def test_a_plugin_that_speaks_both_generations_is_loaded_by_ours(site: Path) -> None:
    points = {"nvcore.client.v2": {"both": "toy_absent"}, "nvcore.client.v1": {"both": "toy_both"}}
    distribution(site, "toy-both", points=points, modules={"toy_both": GOOD})
    assert row(loaded(), "both")["state"] == "registered"


def test_a_family_that_this_host_does_not_have_is_incompatible(site: Path) -> None:
    plugin(site, "radio", "", family="audio")
    assert row(loaded(), "radio")["reason"] == "is of family 'audio', which this host does not have"


def test_a_missing_requirement_is_incompatible_with_the_pip_line(site: Path) -> None:
    plugin(site, "needy", "raise SystemExit", requires=(HOST, "absent-thing>=2", "never; extra == 'x'"))
    needy = row(loaded(), "needy")
    assert (needy["state"], needy["code"], needy["remedy"]) == ("incompatible", "NVC-1105", "pip install 'absent-thing>=2'")


def test_a_plugin_left_behind_by_an_upgrade_of_the_host_is_named_with_the_pip_line(site: Path) -> None:
    plugin(site, "behind", "raise SystemExit", requires=("nvcore==0.0.9",))
    behind = row(loaded(), "behind")
    assert behind["state"] == "incompatible" and "nvcore==0.0.9" in behind["reason"]
    assert behind["remedy"] == "pip install --upgrade toy-behind"


def test_two_distributions_of_one_name_are_a_conflict_and_leaving_one_out_solves_it(site: Path) -> None:
    plugin(site, "same", GOOD, family="client", dist="toy-first")
    plugin(site, "same", GOOD, family="client", dist="toy-second")
    host = loaded()
    assert [(one["state"], one["code"]) for one in host.states()] == [("failed", "NVC-1106")] * 2
    assert "-p no:toy-second" in str(host.states()[0]["remedy"])
    chosen = PluginHost()
    chosen.load(Selection(disabled=["toy-second"]))
    assert [one["state"] for one in chosen.states()] == ["registered", "disabled"]


def test_two_claimants_of_one_thing_are_a_reported_conflict_and_neither_has_it(site: Path) -> None:
    backend = """
from nvcore.api import hookimpl
from nvcore.api.offers import FirmwareOffer

@hookimpl
def nvcore_firmware_backends(host):
    return [FirmwareOffer(name={0!r}, summary="", chips=["GA100", {0!r}], versions=[], open=lambda: None)]
"""
    for name in ("one", "two"):
        plugin(site, name, backend.format(name), family="firmware")
    host = loaded()
    assert [list(offer.chips) for offer in host.collect("nvcore_firmware_backends", contested=True)] == [["GA100", "one"], ["GA100", "two"]]
    assert [list(offer.chips) for offer in host.collect("nvcore_firmware_backends")] == [["one"], ["two"]]
    assert all("GA100' is claimed by one and two" in one["conflicts"][0] for one in host.states())  # type: ignore[index]
    assert host.partial()
    alone = PluginHost()
    alone.load(Selection(disabled=["two"]))
    (offer,) = alone.collect("nvcore_firmware_backends")
    assert offer.plugin == "one" and list(offer.chips) == ["GA100", "one"] and not alone.partial()


def test_two_offers_of_one_name_are_a_conflict_whatever_they_claim(site: Path) -> None:
    for name in ("one", "two"):
        plugin(site, name, CLIENT.format(name="same", claim=f"toy-{name}"), family="client")
    host = loaded()
    assert host.collect("nvcore_client_drivers") == [] and host.partial()
    assert all("name same" in one["conflicts"][0] for one in host.states())  # type: ignore[index]


def test_sections_of_two_plugins_are_told_apart_by_plugin_and_not_by_name(site: Path) -> None:
    for name in ("one", "two"):
        plugin(site, name, SECTION)
    host = loaded()
    assert not host.partial() and host.info("one").config is not host.info("two").config


def test_registration_is_all_or_nothing(site: Path) -> None:
    points = {"nvcore.client.v1": {"half": "toy_half"}, "nvcore.operator.v1": {"half": "toy_other_half"}}
    bad = "from nvcore.api import hookimpl\n@hookimpl\ndef nvcore_metrics(wrong): return []"
    distribution(site, "toy-half", points=points, modules={"toy_half": GOOD, "toy_other_half": bad})
    host = loaded()
    assert row(host, "half")["code"] == "NVC-1113"
    assert host.collect("nvcore_client_drivers") == []
    assert host._hooks._manager.get_plugins() == set()


def test_a_plugin_that_fails_in_a_later_hook_leaves_no_offer_behind(site: Path) -> None:
    points = {"nvcore.client.v1": {"late": "toy_late"}, "nvcore.operator.v1": {"late": "toy_late"}}
    bad = GOOD + "\n@hookimpl\ndef nvcore_metrics(host): raise OSError('late')\n"
    distribution(site, "toy-late", points=points, modules={"toy_late": bad})
    host = loaded()
    assert row(host, "late")["code"] == "NVC-1108"
    assert host.collect("nvcore_client_drivers") == host.collect("nvcore_client_drivers", contested=True) == []


def test_a_plugin_that_hangs_in_start_is_named_and_abandoned_and_the_others_are_torn_down(site: Path) -> None:
    plugin(site, "hangs", OBSERVER.format(started="while 'let go' not in seen: time.sleep(0.01)", stopping="pass"))
    plugin(site, "works", OBSERVER.format(started="pass", stopping="pass"))
    host = PluginHost("daemon", limit=0.2)
    host.load()
    began = time.monotonic()
    host.start(VIEW)
    hangs = row(host, "hangs")
    assert (hangs["state"], hangs["code"]) == ("failed", "NVC-1109")
    assert "nvcore_host_started of hangs" in hangs["reason"] and hangs["remedy"]
    assert row(host, "works")["state"] == "started"
    assert host.teardown() is None
    assert time.monotonic() - began < 3
    import toy_works  # type: ignore[import-not-found]

    assert toy_works.seen == ["started", "stopping"]
    (hanging,) = (thread for thread in threading.enumerate() if "hangs" in thread.name)
    assert hanging.daemon
    import toy_hangs  # type: ignore[import-not-found]

    toy_hangs.seen.append("let go")
    hanging.join(5)


def test_errors_of_stopping_observers_are_grouped_and_all_of_them_run(site: Path) -> None:
    for name in ("a", "b", "c"):
        plugin(site, name, OBSERVER.format(started="pass", stopping="pass" if name == "b" else "raise OSError('no')"))
    host = loaded()
    host.start(VIEW)
    group = host.teardown()
    assert group is not None and len(group.exceptions) == 2
    assert {one["name"] for one in host.states() if one["state"] == "failed"} == {"a", "c"}
    import toy_b  # type: ignore[import-not-found]

    assert toy_b.seen == ["started", "stopping"]


SERVICE = """
from nvcore.api import hookimpl
from nvcore.api.offers import ServiceOffer
seen = []

@hookimpl
def nvcore_services(host):
    return [ServiceOffer(name="beside", summary="", start=lambda view: seen.append("start"), stop=lambda: seen.append("stop"))]
"""


def test_a_service_that_calls_sys_exit_is_named_with_the_line_and_ends_nothing(site: Path) -> None:
    plugin(site, "served", SERVICE.replace('seen.append("start")', "exit(3)").replace("seen = []", "from sys import exit"))
    with_good(site)
    host = loaded()
    host.start(VIEW)
    served = row(host, "served")
    assert (served["state"], served["code"]) == ("failed", "NVC-1112")
    assert f"service beside of served raised SystemExit: 3 at {site}/toy_served.py:8" in served["reason"]
    assert row(host, "good")["state"] == "started" and host.teardown() is None


def test_one_module_may_serve_two_families_but_not_two_plugins(site: Path) -> None:
    both = GOOD + "\n@hookimpl\ndef nvcore_metrics(host): return []\n"
    points = {"nvcore.client.v1": {"one": "toy_shared"}, "nvcore.operator.v1": {"one": "toy_shared", "two": "toy_shared"}}
    distribution(site, "toy-shared", points=points, modules={"toy_shared": both})
    host = loaded()
    assert row(host, "one")["hooks"] == ["nvcore_client_drivers", "nvcore_metrics"] and row(host, "one")["offers"] == 1
    assert (row(host, "two")["state"], row(host, "two")["code"]) == ("failed", "NVC-1113")


def test_stop_ends_one_plugin_and_gives_back_its_offers(site: Path) -> None:
    plugin(site, "served", SERVICE)
    with_good(site)
    host = loaded()
    host.start(VIEW)
    withdrawn = host.stop("served")
    import toy_served  # type: ignore[import-not-found]

    assert toy_served.seen == ["start", "stop"]
    assert [offer.name for offer in withdrawn] == ["beside"]
    assert row(host, "served")["state"] == "disabled" and row(host, "good")["state"] == "started"
    with pytest.raises(NotRunningError):
        host.stop("served")
    with pytest.raises(NotFoundError):
        host.stop("nobody")
    host.teardown()
    assert toy_served.seen == ["start", "stop"]


@pytest.mark.parametrize(
    ("selection", "states"),
    [
        (Selection(), ["registered", "registered"]),
        (Selection(only=["b"]), ["disabled", "registered"]),
        (Selection(only=["toy-b"]), ["disabled", "registered"]),
        (Selection(disabled=["b"]), ["registered", "disabled"]),
        (Selection(only=["a", "b"], disabled=["b"]), ["registered", "disabled"]),
        (Selection(none=True), ["disabled", "disabled"]),
        (Selection(only=["a"], none=True), ["disabled", "disabled"]),
        (Selection().under(["a"], [], []), ["registered", "disabled"]),
        (Selection(only=["b"]).under(["a"], [], []), ["disabled", "registered"]),
        (Selection(only=["b"]).under(None, ["b"], []), ["disabled", "disabled"]),
    ],
)
def test_what_is_not_selected_is_disabled_and_never_imported(site: Path, selection: Selection, states: list[str]) -> None:
    plugin(site, "a", GOOD.replace("toy-good", "toy-a"), family="client")
    plugin(site, "b", GOOD.replace("toy-good", "toy-b").replace("'good'", "'b'"), family="client")
    host = PluginHost()
    host.load(selection)
    assert [one["state"] for one in host.states()] == states
    assert [one["import_ms"] is not None for one in host.states()] == [state == "registered" for state in states]


def test_a_name_that_is_asked_for_and_not_installed_is_listed(site: Path) -> None:
    with_good(site)
    host = PluginHost()
    host.load(Selection(only=["good", "goood"]))
    assert (row(host, "goood")["state"], row(host, "goood")["code"]) == ("failed", "NVC-1115")
    assert "good" in row(host, "goood")["remedy"]


def test_a_name_that_is_to_be_left_out_and_not_installed_is_listed_and_nothing_is_wrong_with_it(site: Path) -> None:
    with_good(site)
    host = PluginHost()
    host.load(Selection(only=["good", "xyzzy"], disabled=["goood", "xyzzy"]))
    assert not host.partial() and row(host, "good")["state"] == "registered"
    for name, meant in (("goood", "did you mean good?"), ("xyzzy", "nothing is left out by it")):
        found = row(host, name)
        assert (found["state"], found["code"], found["remedy"]) == ("disabled", None, None)
        assert found["reason"] == f"-p no:{name}, and not installed; {meant}"
    with pytest.raises(RequiredPluginError, match="required plugin xyzzy is disabled"):
        PluginHost().load(Selection(required=["xyzzy"], disabled=["xyzzy"]))


@pytest.mark.parametrize("name", ["absent", "raises"])
def test_a_required_plugin_that_is_not_usable_stops_the_host(site: Path, name: str) -> None:
    plugin(site, "raises", "1 / 0")
    with pytest.raises(RequiredPluginError) as caught:
        PluginHost().load(Selection(required=[name]))
    assert name in caught.value.what and caught.value.remedy and caught.value.exit_code == 78


def test_a_required_plugin_whose_import_only_took_too_long_may_be_tried_again(site: Path) -> None:
    plugin(site, "slow", "import time\ntime.sleep(0.6)\n" + GOOD, family="client")
    with pytest.raises(RequiredPluginError, match="import of slow did not return within") as caught:
        PluginHost(limit=0.05).load(Selection(required=["slow"]))
    assert (caught.value.code, caught.value.exit_code) == ("NVC-1116", 1)
    for thread in [thread for thread in threading.enumerate() if "import of slow" in thread.name]:
        thread.join(5)


def test_a_plugins_section_reaches_its_hooks_as_its_record(site: Path, tmp_path: Path) -> None:
    plugin(site, "settings", SECTION)
    file = tmp_path / "x.toml"
    file.write_text("[plugins.settings]\nslots = 9\n")
    host = loaded(configuration=load(files=[str(file)]))
    assert (host.info("settings").config.slots, host.info("settings").config.label) == (9, "none")
    import toy_settings  # type: ignore[import-not-found]

    assert toy_settings.seen[0].slots == 9


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("[plugins.settings]\nslots = 9\nslotz = 1\n", 3),
        ("[plugins.settings]\n\nslots = 'many'\n", 3),
        ("[plugins.settings]\nslots = true\n", 2),
        ("\n[plugins.unknown]\nx = 1\n", 2),
        ("[plugins.good]\nx = 1\n", 1),
    ],
)
def test_a_wrong_section_is_refused_with_file_and_line(site: Path, tmp_path: Path, text: str, line: int) -> None:
    plugin(site, "settings", SECTION)
    with_good(site)
    file = tmp_path / "x.toml"
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        loaded(configuration=load(files=[str(file)]))
    assert caught.value.where == f"{file}:{line}"


def test_a_section_of_a_plugin_that_cannot_be_loaded_is_left_alone(site: Path, tmp_path: Path) -> None:
    plugin(site, "raises", "1 / 0")
    file = tmp_path / "x.toml"
    file.write_text("[plugins.raises]\nx = 1\n")
    assert row(loaded(configuration=load(files=[str(file)])), "raises")["state"] == "failed"


BROKEN_SECTION = """
import sys
import attrs
from nvcore.api import hookimpl
from nvcore.api.offers import ConfigSection

def refuses(instance, attribute, value):
    raise OSError("no such slot")

@attrs.frozen
class Plain:
    slots: int = 4

@attrs.frozen
class Unknown:
    slots: "Nowhere" = 4

@attrs.frozen
class Refuses:
    slots: int = attrs.field(default=4, validator=refuses)

@hookimpl
def nvcore_config_sections(host):
    return [ConfigSection("broken", "settings", {section})]
"""


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ("int", "no attrs class"),
        ("Unknown", "Nowhere"),
        ("Refuses", "no such slot"),
        ("Plain, lambda version, table: 1 / 0", "ZeroDivisionError"),
        ("Plain, lambda version, table: sys.exit(3)", "SystemExit"),
    ],
)
def test_a_section_that_its_plugin_cannot_read_costs_the_plugin_and_not_the_host(
    site: Path, tmp_path: Path, section: str, words: str
) -> None:
    plugin(site, "broken", BROKEN_SECTION.format(section=section))
    with_good(site)
    file = tmp_path / "x.toml"
    file.write_text("[plugins.broken]\nversion = 1\n" if "version" in section else "")
    host = loaded(configuration=load(files=[str(file)]))
    broken = row(host, "broken")
    assert (broken["state"], broken["code"]) == ("failed", "NVC-1108") and words in broken["reason"] and broken["remedy"]
    assert row(host, "good")["state"] == "registered" and host.collect("nvcore_config_sections") == []


def test_a_plugin_that_needs_a_section_and_has_none_says_so_and_the_host_runs(site: Path, tmp_path: Path) -> None:
    plugin(site, "settings", SECTION.replace("slots: int = 4", "slots: int"))
    with_good(site)
    host = loaded()
    found = row(host, "settings")
    assert found["state"] == "failed" and "'slots' is missing" in found["reason"] and "[plugins.settings]" in found["remedy"]
    assert row(host, "good")["state"] == "registered"
    file = tmp_path / "x.toml"
    file.write_text("[plugins.settings]\nlabel = 'x'\n")
    with pytest.raises(ConfigError, match="'slots' is missing") as caught:
        loaded(configuration=load(files=[str(file)]))
    assert caught.value.where == f"{file}:1"


def test_what_was_installed_while_the_host_runs_needs_a_restart(site: Path) -> None:
    with_good(site)
    old = plugin(site, "old", GOOD.replace("toy-good", "toy-old").replace("'good'", "'old'"), family="client")
    gone = plugin(site, "gone", GOOD.replace("toy-good", "toy-gone").replace("'good'", "'gone'"), family="client")
    running = [dict(one) for one in loaded().states()]
    changes_on_disk(running, scan())
    assert [note for one in running for note in one["notes"]] == []
    plugin(site, "late", GOOD, family="client")
    old.rename(old.with_name("toy_old-2.0.dist-info"))
    (old.with_name("toy_old-2.0.dist-info") / "METADATA").write_text("Name: toy-old\nVersion: 2.0\n")
    (gone / "entry_points.txt").unlink()
    changes_on_disk(running, scan())
    assert sorted(note for one in running for note in one["notes"]) == [
        "gone: removed from the disk, still running; restart needed",
        "late: new on disk, restart needed",
        "old: 2.0 on disk, 1.0 running; restart needed",
    ]
    assert next(one for one in running if one["name"] == "late")["state"] == "found"


def test_an_entry_point_may_be_a_class_or_an_object(site: Path) -> None:
    source = """
from nvcore.api import hookimpl
class Plugin:
    @hookimpl
    def nvcore_client_drivers(self, host): return []
    @property
    def trap(self): raise AssertionError("a property is not evaluated")
thing = Plugin()
"""
    points = {"nvcore.client.v1": {"cls": "toy_class:Plugin", "obj": "toy_class:thing"}}
    distribution(site, "toy-class", points=points, modules={"toy_class": source})
    host = loaded()
    assert [one["state"] for one in host.states()] == ["registered", "registered"]
