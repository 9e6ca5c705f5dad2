"""The two strangers under `examples/`: small, on the public rooms only, and at work in an environment made of wheels alone.

Each is copied out of the tree, built as its author would, and installed beside nvcore and fw_gsp. Nothing there knows this checkout.
"""

from __future__ import annotations

import ast
import json
import shutil
import zipfile
from pathlib import Path
from typing import Any

import pytest

from .clean import Clean

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
LIMITS = {"toy_client": 80, "toy_firmware": 120}
PARTIAL = 7
CONFLICT = "FirmwareOffer 'GA100' is claimed by fw_gsp and toy_firmware; neither has it (NVC-1114); choose with -p no:NAME"


def folder_of(module: str) -> Path:
    return EXAMPLES / module.replace("_", "-")


class Strangers(Clean):
    """nvcore, fw_gsp, both strangers and pytest, and the folder that the strangers were copied to."""

    def __init__(self, folder: Path, base: Clean) -> None:
        super().__init__(folder)
        self.copy(base)
        self.sources = folder / "sources"
        for module in LIMITS:
            shutil.copytree(folder_of(module), self.sources / module, ignore=shutil.ignore_patterns("__pycache__"))
        self.build(*(self.sources / module for module in LIMITS))
        self.install("toy-client", "toy-firmware")

    def doctor(self, *options: str) -> tuple[int, dict[str, dict[str, Any]]]:
        """Exit code and plugins by name."""
        done = self.run("-m", "nvcore", "plugins", "doctor", "-o", "json", *options)
        assert done.stdout, done.stderr
        return done.returncode, {row["name"]: row for row in json.loads(done.stdout)["plugins"]}


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory, base: Clean) -> Strangers:
    return Strangers(tmp_path_factory.mktemp("strangers"), base)


@pytest.fixture(scope="module")
def ga100(clean: Strangers) -> str:
    """A configuration in which the second backend claims GA100 too."""
    path = clean.folder / "nvcore.toml"
    path.write_text('[plugins.toy_firmware]\nchips = ["TU102", "GA100"]\n')
    return str(path)


@pytest.mark.parametrize("module", LIMITS)
def test_a_stranger_is_small(module: str) -> None:
    """Every line of every module that it ships counts."""
    files = [path for path in folder_of(module).rglob("*.py") if "tests" not in path.parts]
    assert [path.name for path in files] == [f"{module}.py"]
    assert files[0].read_text().count("\n") < LIMITS[module]


@pytest.mark.parametrize("module", LIMITS)
def test_a_stranger_imports_the_contracts_and_locks_only(module: str) -> None:
    tree = ast.parse((folder_of(module) / f"{module}.py").read_text())
    named = [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    named += [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
    ours = {".".join(name.split(".")[:2]) for name in named if name.partition(".")[0].startswith("nvcore")}
    assert ours <= {"nvcore.api", "nvcore.locks"}
    assert {name for name in named if not name.startswith("nvcore")} <= {"attrs", "collections.abc"}


def test_each_wheel_holds_its_module_and_nothing_else(clean: Strangers) -> None:
    for module in LIMITS:
        (wheel,) = clean.wheels.glob(f"{module}-*.whl")
        with zipfile.ZipFile(wheel) as archive:
            assert [name for name in archive.namelist() if ".dist-info/" not in name] == [f"{module}.py"]


def test_the_doctor_finds_both_beside_ours(clean: Strangers) -> None:
    status, plugins = clean.doctor()
    assert status == 0, plugins
    assert {name: (row["state"], row["offers"]) for name, row in plugins.items()} == {
        "fw_gsp": ("registered", plugins["fw_gsp"]["offers"]),
        "toy_client": ("registered", 1),
        "toy_firmware": ("registered", 2),
    }
    assert plugins["toy_client"]["hooks"] == ["nvcore_client_drivers"]


def test_a_second_claim_on_a_chip_is_reported_by_name_and_exit_code(clean: Strangers, ga100: str) -> None:
    status, plugins = clean.doctor("--config", ga100)
    assert status == PARTIAL
    assert plugins["fw_gsp"]["conflicts"] == plugins["toy_firmware"]["conflicts"] == [CONFLICT]
    assert plugins["toy_client"]["conflicts"] == []


def test_the_operator_ends_the_conflict_by_choosing(clean: Strangers, ga100: str) -> None:
    for name in ("toy_firmware", "fw_gsp"):
        status, plugins = clean.doctor("--config", ga100, "-p", f"no:{name}")
        assert status == 0 and plugins[name]["state"] == "disabled"
        assert not any(row["conflicts"] for row in plugins.values())


def test_a_person_reads_who_and_what_to_do(clean: Strangers, ga100: str) -> None:
    done = clean.run("-m", "nvcore", "plugins", "doctor", "--config", ga100)
    assert done.returncode == PARTIAL and CONFLICT in done.stdout


def test_a_daemon_runs_on_with_the_conflict_and_says_so_when_it_ends(clean: Strangers, ga100: str) -> None:
    daemon = clean.start("-m", "nvcore", "run", "--config", ga100)
    try:
        clean.started(daemon)
        listed = clean.run("-m", "nvcore", "plugins", "list", "-o", "json")
    finally:
        status, said = clean.stop(daemon)
    rows = {row["name"]: row for row in json.loads(listed.stdout)["plugins"]}
    assert listed.returncode == PARTIAL and rows["toy_firmware"]["conflicts"] == [CONFLICT]
    assert [row["state"] for row in rows.values()] == ["started"] * 3
    assert status == PARTIAL, said


CONFLICTED = """
import json, sys
from pathlib import Path
import nvcore_fw_gsp.plugin, toy_firmware
from nvcore.testing.host import HostKit

config = {"toy_firmware": toy_firmware.Backend(("GA100",))}
kit = HostKit(nvcore_fw_gsp.plugin, toy_firmware, chip="GA100", config=config, state_dir=Path(sys.argv[1])).start()
state = kit.gpu.state
print(json.dumps({"state": state.name, "cause": state.cause, "code": state.code, "remedy": state.remedy, "left": kit.close()}))
"""


def test_a_gpu_of_a_contested_chip_says_so_and_boots_neither(clean: Strangers) -> None:
    done = clean.run("-c", CONFLICTED, str(clean.folder / "state"))
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["state"] == "failed" and answer["code"] == "NVC-1005" and answer["left"] == []
    assert "gsp-rm (plugin" in answer["cause"] and "toy-firmware" in answer["cause"] and "-p no:NAME" in answer["remedy"]


@pytest.mark.parametrize("module", LIMITS)
def test_a_stranger_passes_its_own_tests_with_the_kit(clean: Strangers, module: str) -> None:
    done = clean.run("-m", "pytest", "-p", "no:cacheprovider", str(clean.sources / module / "tests"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "nvcore: lock validator on" in done.stdout
