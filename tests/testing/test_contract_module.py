"""The contract checks of a plugin module: ours pass, and each clause is broken once."""

from __future__ import annotations

import importlib.util
import itertools
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

import nvcore_fw_gsp.plugin
import nvcore_softgpu.plugin
import nvcore_vfio.operator
import nvcore_vfio.plugin
from nvcore.testing.contracts import CLAUSES, BrokenContract, check_plugin_module

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
HEAD = """
import attrs
from nvcore.api import hookimpl
from nvcore.api.needs import NO_NEEDS
from nvcore.api.offers import CheckOffer, ClientOffer, ConfigSection, Finding, InterfaceOffer, PanelOffer

def client(name="sound", summary="a client"):
    return ClientOffer(name, summary, ("graphics",), lambda identity: NO_NEEDS, lambda: None)
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
        "    return [InterfaceOffer('o.X', 's', 'method List() -> ()', frozenset(), frozenset(), object())]",
    ),
    "a handler without the method": (
        "module-interface",
        "@hookimpl\ndef nvcore_control_interfaces(host):\n"
        "    return [InterfaceOffer('o.X', 's', 'method List() -> ()', frozenset({'List'}), frozenset(), object())]",
    ),
}
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
    assert len(offers) == 5
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


def test_every_clause_of_a_module_has_a_mutant() -> None:
    assert {clause for clause, _ in MUTANTS.values()} == {name for name in CLAUSES if name.startswith("module-")}
