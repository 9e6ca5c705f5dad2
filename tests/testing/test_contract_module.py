"""The contract checks of a plugin module: ours pass, and each clause is broken once."""

from __future__ import annotations

import importlib
import importlib.util
import itertools
import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

import nvcore_fw_gsp.plugin
import nvcore_softgpu.plugin
import nvcore_vfio.operator
import nvcore_vfio.plugin
from nvcore.testing.contracts import CLAUSES, BrokenContract, check_plugin_module
from tests.examples.page import blocks, write

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
HEAD = """
import attrs
from nvcore.api import hookimpl
from nvcore.api.needs import NO_NEEDS
from nvcore.api.offers import CheckOffer, ClientOffer, ConfigSection, Finding, InterfaceOffer, MetricOffer, PanelOffer, Sample, ServiceOffer
from tests.testing.test_contract_client import Sound, driver_of

def client(name="sound", summary="a client", made=Sound):
    return ClientOffer(name, summary, ("graphics",), lambda identity: NO_NEEDS, driver_of(made))
"""
SOUND = (
    HEAD
    + """
@attrs.frozen
class Record:
    pages: int = 1

class Handler:
    def List(self, call):
        return {}

@hookimpl
def nvcore_config_sections(host):
    return [ConfigSection("sound", "pages", Record)]

@hookimpl
def nvcore_client_drivers(host):
    return [client()] if host.config.pages else []

@hookimpl
def nvcore_status_panels(host):
    return [PanelOffer("sound", "pages", "sound/1", (("page", "PAGE", "right"),), 50, lambda: [{"page": 1}])]

@hookimpl
def nvcore_doctor_checks(host):
    return [CheckOffer("sound", "all is well", lambda: [Finding("ok", "well")])]

@hookimpl
def nvcore_control_interfaces(host):
    text = "interface org.example.Sound\\nmethod List() -> ()\\n"
    return [InterfaceOffer("org.example.Sound", "pages", text, frozenset({"List"}), frozenset(), Handler())]

@hookimpl
def nvcore_metrics(host):
    return [MetricOffer("sound_pages", "pages", "gauge", "pages", ("of",), lambda: [Sample(1, {"of": "sound"})])]

@hookimpl
def nvcore_host_started(host):
    return None
"""
)
MUTANTS: dict[str, tuple[str, str]] = {
    "a misspelt hook": ("module-hooks", "@hookimpl\ndef nvcore_client_driver(host):\n    return []"),
    "an unmarked hook": ("module-hooks", "def nvcore_client_drivers(host):\n    return []"),
    "no hook": ("module-hooks", "x = 1"),
    "a wrapper": ("module-hooks", "@hookimpl(wrapper=True)\ndef nvcore_client_drivers(host):\n    return (yield)"),
    "a hook without its argument": ("module-hooks", "@hookimpl\ndef nvcore_client_drivers():\n    return []"),
    "a hook with another argument": ("module-hooks", "@hookimpl\ndef nvcore_client_drivers(info):\n    return []"),
    "another kind of offer": ("module-offers", "@hookimpl\ndef nvcore_status_panels(host):\n    return [client()]"),
    "no summary": ("module-offers", "@hookimpl\ndef nvcore_client_drivers(host):\n    return [client(summary='')]"),
    "one name twice": ("module-offers", "@hookimpl\ndef nvcore_client_drivers(host):\n    return [client(), client()]"),
    "answers that change": (
        "module-pure",
        "import itertools\ncount = itertools.count()\n@hookimpl\ndef nvcore_client_drivers(host):\n    return [client(f'n{next(count)}')]",
    ),
    "a hook that raises": ("module-pure", "@hookimpl\ndef nvcore_client_drivers(host):\n    return 1 / 0"),
    "a hook that opens a file": (
        "module-pure",
        "import os\n@hookimpl\ndef nvcore_client_drivers(host):\n    os.memfd_create('kept')\n    return []",
    ),
    "imports the host": (
        "module-imports",
        "def late():\n    from nvcore.gpu import life\n@hookimpl\ndef nvcore_client_drivers(host):\n    return []",
    ),
    "imports the test kit": ("module-imports", "import nvcore.testing\n@hookimpl\ndef nvcore_client_drivers(host):\n    return []"),
    "a section that is no attrs class": (
        "module-config",
        "@hookimpl\ndef nvcore_config_sections(host):\n    return [ConfigSection('s', 'x', dict)]",
    ),
    "a key without a default": (
        "module-config",
        "@attrs.frozen\nclass R:\n    key: int\n@hookimpl\ndef nvcore_config_sections(host):\n    return [ConfigSection('s', 'x', R)]",
    ),
    "a client that does not come up": (
        "module-clients",
        "@hookimpl\ndef nvcore_client_drivers(host):\n    return [client(made=lambda context: 1 / 0)]",
    ),
    "a panel that raises": (
        "module-panel",
        "@hookimpl\ndef nvcore_status_panels(host):\n    return [PanelOffer('p', 's', 'p/1', (), 1, lambda: 1 / 0)]",
    ),
    "a row without a column": (
        "module-panel",
        "@hookimpl\ndef nvcore_status_panels(host):\n    return [PanelOffer('p', 's', 'p/1', (('a', 'A', 'left'),), 1, lambda: [{}])]",
    ),
    "a row that is not for JSON": (
        "module-panel",
        "@hookimpl\ndef nvcore_status_panels(host):\n    return [PanelOffer('p', 's', 'p/1', (), 1, lambda: [{'a': object()}])]",
    ),
    "a check that raises": ("module-check", "@hookimpl\ndef nvcore_doctor_checks(host):\n    return [CheckOffer('c', 's', lambda: 1 / 0)]"),
    "a check of text": ("module-check", "@hookimpl\ndef nvcore_doctor_checks(host):\n    return [CheckOffer('c', 's', lambda: ['fine'])]"),
    "a method in neither set": (
        "module-interface",
        "@hookimpl\ndef nvcore_control_interfaces(host):\n"
        "    return [InterfaceOffer('o.X', 's', 'interface o.X\\nmethod List() -> ()', frozenset(), frozenset(), object())]",
    ),
    "a handler without the method": (
        "module-interface",
        "@hookimpl\ndef nvcore_control_interfaces(host):\n"
        "    return [InterfaceOffer('o.X', 's', 'interface o.X\\nmethod List() -> ()', frozenset({'List'}), frozenset(), object())]",
    ),
    "an interface of nvcore's name": (
        "module-interface",
        "@hookimpl\ndef nvcore_control_interfaces(host):\n"
        "    return [InterfaceOffer('io.nvcore.Gpu', 's', 'interface io.nvcore.Gpu', frozenset(), frozenset(), object())]",
    ),
    "an interface of two names": (
        "module-interface",
        "@hookimpl\ndef nvcore_control_interfaces(host):\n"
        "    return [InterfaceOffer('org.example.A', 's', 'interface org.example.B', frozenset(), frozenset(), object())]",
    ),
    "a severity that nobody knows": (
        "module-check",
        "@hookimpl\ndef nvcore_doctor_checks(host):\n    return [CheckOffer('c', 's', lambda: [Finding('fine', 'well')])]",
    ),
    "a label that is not declared": (
        "module-metric",
        "@hookimpl\ndef nvcore_metrics(host):\n"
        "    return [MetricOffer('m', 's', 'gauge', 'x', ('gpu',), lambda: [Sample(1, {'gpu': 'a', 'colour': 'red'})])]",
    ),
    "a declared label without a value": (
        "module-metric",
        "@hookimpl\ndef nvcore_metrics(host):\n    return [MetricOffer('m', 's', 'gauge', 'x', ('gpu',), lambda: [Sample(1)])]",
    ),
    "a sample that is no number": (
        "module-metric",
        "@hookimpl\ndef nvcore_metrics(host):\n    return [MetricOffer('m', 's', 'gauge', 'x', (), lambda: [Sample(None)])]",
    ),
    "a metric that raises": (
        "module-metric",
        "@hookimpl\ndef nvcore_metrics(host):\n    return [MetricOffer('m', 's', 'gauge', 'x', (), lambda: 1 / 0)]",
    ),
    "imports asyncio": ("module-imports", "import asyncio\n@hookimpl\ndef nvcore_client_drivers(host):\n    return []"),
    "tries to import numpy": (
        "module-imports",
        "try:\n    import numpy\nexcept ImportError:\n    numpy = None\n@hookimpl\ndef nvcore_client_drivers(host):\n    return []",
    ),
}


def offers(hook: str, offer: str, before: str = "") -> str:
    """A module with one hook that returns one offer, or what is written there instead."""
    return f"{before}\n@hookimpl\ndef {hook}(host):\n    return [{offer}]"


def interface(text: str, observe: str = "frozenset({'List'})", handler: str = "H()") -> str:
    before = "class H:\n    def List(self, call):\n        return {}\nclass Bare:\n    def List(self):\n        return {}\n"
    return offers("nvcore_control_interfaces", f"InterfaceOffer('o.X', 's', {text!r}, {observe}, frozenset(), {handler})", before)


def section(*records: str, before: str = "") -> str:
    made = ", ".join(f"ConfigSection('s{number}', 'x', {record})" for number, record in enumerate(records))
    return offers("nvcore_config_sections", made, f"{before}\n@attrs.frozen\nclass R:\n    key: int = 0\n")


def panel(snapshot: str, columns: str = "()", schema: str = "'p/1'", order: str = "1") -> str:
    return offers("nvcore_status_panels", f"PanelOffer('p', 's', {schema}, {columns}, {order}, {snapshot})")


def metric(samples: str, labels: str = "()", kind: str = "gauge", name: str = "'m'") -> str:
    return offers("nvcore_metrics", f"MetricOffer({name}, 's', '{kind}', 'x', {labels}, lambda: {samples})")


GOOD = offers("nvcore_client_drivers", "client()")
MUTANTS |= {
    "a client that cannot be asked for its needs": (
        "module-offers",
        offers("nvcore_client_drivers", "ClientOffer('s', 'x', ('graphics',), lambda: NO_NEEDS, lambda: None)"),
    ),
    "a service without a start": ("module-offers", offers("nvcore_services", "ServiceOffer('s', 'x', None, lambda: None)")),
    "a check that is none": ("module-offers", offers("nvcore_doctor_checks", "CheckOffer('c', 's', None)")),
    "a name that is no text": ("module-offers", metric("[]", name="5")),
    "two sections": ("module-config", section("R", "R")),
    "a record whose validator raises": (
        "module-config",
        section("V", before="@attrs.frozen\nclass V:\n    key: int = attrs.field(default=0, validator=lambda *_: 1 / 0)\n"),
    ),
    "a panel of nothing": ("module-panel", panel("lambda: None")),
    "a panel of a number": ("module-panel", panel("lambda: 3")),
    "columns without sides": ("module-panel", panel("list", columns="(('a', 'A'),)")),
    "no columns": ("module-panel", panel("list", columns="None")),
    "a panel without a schema": ("module-panel", panel("list", schema="''")),
    "a panel first": ("module-panel", panel("list", order="'first'")),
    "a sample without labels": ("module-metric", metric("[Sample(1, None)]")),
    "a metric with a strange name": ("module-metric", metric("[]", name="'a-b'")),
    "a metric of one label": ("module-metric", metric("[]", labels="'gpu'")),
    "a label with a space": ("module-metric", metric("[Sample(1, {'the gpu': 'a'})]", labels="('the gpu',)")),
    "two samples alike": ("module-metric", metric("[Sample(1, {'gpu': 'a'}), Sample(2, {'gpu': 'a'})]", labels="('gpu',)")),
    "a counter below zero": ("module-metric", metric("[Sample(-1)]", kind="counter")),
    "lists of methods": ("module-interface", interface("interface o.X\nmethod List() -> ()", observe="['List']")),
    "a method that the daemon does not see": ("module-interface", interface("interface o.X\n  method List() -> ()")),
    "a method twice": ("module-interface", interface("interface o.X\nmethod List() -> ()\nmethod List(a: int) -> ()")),
    "a handler that takes no call": ("module-interface", interface("interface o.X\nmethod List() -> ()", handler="Bare()")),
    "imports asyncio but for type checkers": (
        "module-imports",
        "from typing import TYPE_CHECKING\nif not TYPE_CHECKING:\n    import asyncio\n" + GOOD,
    ),
    "imports asyncio behind a condition": (
        "module-imports",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING or Sound:\n    import asyncio\n" + GOOD,
    ),
}
SEEN: dict[str, str] = {
    "a client that cannot be asked for its needs": r"needs of s is called with 1 argument, and takes \(\)$",
    "a service without a start": "start of s is None, which cannot be called",
    "two sections": "2 sections, s0, s1; a host takes the first one alone",
    "a record whose validator raises": "making the record of section s0 from its defaults raised ZeroDivisionError",
    "a method that the daemon does not see": r"methods \[\], .* each method begins a line, once",
    "a handler that takes no call": r"the handler's List is called with 1 argument, and takes \(\)$",
    "two samples alike": "m gave two samples with labels {'gpu': 'a'}",
    "a misspelt hook": "nvcore_client_driver is no hook; did you mean nvcore_client_drivers?",
    "a hook that raises": r"nvcore_client_drivers\(\) raised ZeroDivisionError: .* at .*contract_module_\d+\.py:12$",
    "a client that does not come up": "sound failed on a fake GPU: .*ZeroDivisionError: division by zero; see what check_client says",
    "a method in neither set": "observe \\[\\], control \\[\\]",
    "a handler without the method": "the handler has no List",
    "an interface of nvcore's name": "io.nvcore.Gpu is a name of nvcore's own",
    "an interface of two names": "name is org.example.A, its text says interface org.example.B",
    "a severity that nobody knows": "check c gave severity 'fine'; severities are ok, note, warning, error",
    "a label that is not declared": "a sample of m has labels gpu, colour, declared are gpu",
    "imports asyncio": r"contract_module_\d+\.py:10 imports asyncio",
    "a check that raises": r"check c raised ZeroDivisionError.* at .*contract_module_\d+\.py:12$",
}
"""What is said of some of them."""

FAULTY: dict[str, tuple[str, str, str]] = {
    "a row without its column": (
        "module-panel",
        'panel(lambda pad: {"size": 1})',
        "a row of pads has no gpu with two GPUs up; it has size",
    ),
    "a row that fails once a GPU is lost": ("module-panel", 'panel(lambda pad: {"gpu": 1 / (not pad.stopped)})', "with a GPU lost"),
    "a severity": (
        "module-check",
        'CheckOffer("c", "s", lambda: [Finding("warning" if not pad.stopped else "bad", pad.gpu) for pad in pads()])',
        "check c gave severity 'bad' with a GPU lost",
    ),
    "a label": (
        "module-metric",
        'MetricOffer("m", "s", "gauge", "", (), lambda: [Sample(1, {"gpu": pad.gpu}) for pad in pads()])',
        "has labels gpu with two GPUs up, declared are none",
    ),
}
"""Offers that are sound until a client runs: clause, offer, what is said."""

_numbers = itertools.count()


def load(path: Path, name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def module_of(folder: Path, body: str) -> ModuleType:
    name = f"contract_module_{next(_numbers)}"
    path = folder / f"{name}.py"
    path.write_text(body)
    return load(path, name)


@pytest.fixture(autouse=True)
def tidy() -> Iterator[None]:
    yield
    for fd in os.listdir("/proc/self/fd"):
        try:
            if os.readlink(f"/proc/self/fd/{fd}").startswith("/memfd:kept"):
                os.close(int(fd))
        except OSError:
            continue


def test_a_sound_module_passes_and_its_offers_are_handed_on(tmp_path: Path) -> None:
    module = module_of(tmp_path, SOUND)
    offers = check_plugin_module(module)
    assert {hook: len(group) for hook, group in offers.items()} == dict.fromkeys(offers, 1)
    assert len(offers) == 6
    assert check_plugin_module(module, config=module.Record(pages=0))["nvcore_client_drivers"] == []


@pytest.mark.parametrize(
    "module",
    [nvcore_fw_gsp.plugin, nvcore_vfio.plugin, nvcore_vfio.operator, nvcore_softgpu.plugin],
    ids=lambda module: module.__name__,
)
def test_our_own_plugins_pass(module: ModuleType) -> None:
    assert check_plugin_module(module)


@pytest.mark.parametrize("name", ["toy_client", "toy_firmware"])
def test_the_strangers_pass(name: str) -> None:
    assert check_plugin_module(load(EXAMPLES / name.replace("_", "-") / f"{name}.py", f"contract_{name}"))


@pytest.mark.parametrize("name", MUTANTS)
def test_a_broken_clause_is_named(name: str, tmp_path: Path) -> None:
    clause, body = MUTANTS[name]
    with pytest.raises(BrokenContract) as caught:
        check_plugin_module(module_of(tmp_path, HEAD + body))
    assert caught.value.clause == clause, str(caught.value)
    assert CLAUSES[clause] in str(caught.value)
    assert re.search(SEEN.get(name, ""), str(caught.value)), str(caught.value)


OPERATOR = """
from nvcore.api import hookimpl
from nvcore.api.offers import CheckOffer, Finding, MetricOffer, PanelOffer, Sample
from scratchpad.plugin import driver

@hookimpl
def HOOK(host):
    pads = lambda: driver(host).known()
    def panel(row):
        return PanelOffer("pads", "s", "p/1", (("gpu", "GPU", "left"),), 1, lambda: [row(pad) for pad in pads()])
    return [OFFER]
"""
HOOK_OF = {"module-panel": "nvcore_status_panels", "module-check": "nvcore_doctor_checks", "module-metric": "nvcore_metrics"}


@pytest.fixture
def scratchpad(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], tuple[ModuleType, ModuleType]]]:
    """The client of the authors' page, with a module `operator` beside it."""

    def make(operator: str) -> tuple[ModuleType, ModuleType]:
        for block in blocks():
            if block.file == "scratchpad/plugin.py":
                write(block, tmp_path)
        (tmp_path / "scratchpad" / "operator.py").write_text(operator)
        monkeypatch.syspath_prepend(str(tmp_path))
        return importlib.import_module("scratchpad.plugin"), importlib.import_module("scratchpad.operator")

    yield make
    for name in [name for name in sys.modules if name.partition(".")[0] == "scratchpad"]:
        del sys.modules[name]


@pytest.mark.parametrize("name", FAULTY)
def test_what_is_wrong_only_while_a_client_runs_is_found_too(name: str, scratchpad: Callable[[str], tuple[ModuleType, ModuleType]]) -> None:
    clause, offer, said = FAULTY[name]
    client, operator = scratchpad(OPERATOR.replace("HOOK", HOOK_OF[clause]).replace("OFFER]", f"{offer}]"))
    with pytest.raises(BrokenContract, match=said) as caught:
        check_plugin_module(client, operator)
    assert caught.value.clause == clause and str(caught.value).startswith("scratchpad.operator breaks ")


def test_a_client_of_another_chip_is_looked_at_on_that(tmp_path: Path) -> None:
    made = "def made(context):\n    assert context.gpu.chip.name == 'GA100', 'not mine'\n    return Sound(context)\n"
    module = module_of(tmp_path, f"{HEAD}{made}@hookimpl\ndef nvcore_client_drivers(host):\n    return [client(made=made)]")
    with pytest.raises(BrokenContract, match=r"module-clients.*not mine"):
        check_plugin_module(module)
    assert check_plugin_module(module, chip="GA100")


def test_the_module_and_the_hook_that_raised_are_named(scratchpad: Callable[[str], tuple[ModuleType, ModuleType]]) -> None:
    modules = scratchpad("from nvcore.api import hookimpl\n\n@hookimpl\ndef nvcore_metrics(host):\n    return [0][1]\n")
    said = r"^scratchpad.operator breaks module-pure.*nvcore_metrics\(\) raised IndexError.*operator.py:5$"
    with pytest.raises(BrokenContract, match=said):
        check_plugin_module(*modules)


def test_a_file_that_does_not_compile_is_named_with_its_line(scratchpad: Callable[[str], tuple[ModuleType, ModuleType]]) -> None:
    client, operator = scratchpad("")
    Path(str(operator.__file__)).write_text("x = 1\ndef broken(:\n")
    with pytest.raises(BrokenContract, match=r"scratchpad.plugin breaks module-imports.*scratchpad/operator.py:2 does not compile"):
        check_plugin_module(client)


def test_asyncio_is_for_commands_and_functions_and_not_for_what_a_daemon_imports(
    scratchpad: Callable[[str], tuple[ModuleType, ModuleType]],
) -> None:
    """In a file that only a command imports, in a function and for type checkers it costs a daemon nothing; behind an import it does."""
    hook = "from nvcore.api import hookimpl\n@hookimpl\ndef nvcore_metrics(host):\n    import asyncio\n    return []\n"
    guarded = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import asyncio\n"
    client, operator = scratchpad(guarded + hook)
    folder = Path(str(operator.__file__)).parent
    (folder / "cli.py").write_text("import asyncio\n")
    assert check_plugin_module(client, operator)
    for way in ("from scratchpad import far\n", "from . import far\n", "from .far import asyncio\n", "import scratchpad.far\n"):
        (folder / "far.py").write_text("import asyncio\n")
        (folder / "operator.py").write_text(way + hook)
        with pytest.raises(BrokenContract, match=r"scratchpad/far.py:1 imports asyncio"):
            check_plugin_module(client)


def test_a_file_in_another_encoding_that_says_so_is_read(tmp_path: Path) -> None:
    path = tmp_path / "contract_latin.py"
    path.write_bytes(b"# -*- coding: latin-1 -*-\n# \xe9\n" + f"{HEAD}{GOOD}".encode())
    assert check_plugin_module(load(path, "contract_latin"))
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(BrokenContract, match=r"contract_latin.py\S* does not compile"):
        check_plugin_module(sys.modules["contract_latin"])


def test_tests_beside_the_code_may_import_what_tests_import(scratchpad: Callable[[str], tuple[ModuleType, ModuleType]]) -> None:
    client, operator = scratchpad("")
    folder = Path(str(operator.__file__)).parent
    for name in ("test_plugin", "plugin_test", "conftest"):
        (folder / f"{name}.py").write_text("import asyncio\nfrom nvcore.testing.contracts import check_client\n")
    assert check_plugin_module(client)
    (folder / "tested.py").write_text("from nvcore.testing.contracts import check_client\n")
    with pytest.raises(BrokenContract, match=r"scratchpad/tested.py:1 imports nvcore.testing"):
        check_plugin_module(client)


def test_every_clause_of_a_module_has_a_mutant() -> None:
    assert {clause for clause, _ in MUTANTS.values()} == {name for name in CLAUSES if name.startswith("module-")}
