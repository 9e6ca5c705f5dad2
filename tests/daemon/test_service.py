"""The unit file: what systemd itself says of it, and the promises that the documents make."""

from __future__ import annotations

import configparser
import re
import shutil
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import pytest

UNIT = files("nvcore.daemon") / "systemd" / "nvcore.service"


def keys(section: str = "Service") -> dict[str, str]:
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string(UNIT.read_text())
    return dict(parser[section])


def test_systemd_finds_nothing_wrong_with_it(tmp_path: Path) -> None:
    tool = shutil.which("systemd-analyze")
    if tool is None:
        pytest.skip("by design: no systemd-analyze on this machine")
    unit = tmp_path / "nvcore.service"
    text = re.sub(r"^ExecStart=\S+", f"ExecStart={sys.executable}", UNIT.read_text(), flags=re.MULTILINE)
    unit.write_text(text)
    done = subprocess.run([tool, "verify", "--man=no", str(unit)], capture_output=True, text=True, timeout=60)
    said = [line for line in done.stderr.splitlines() if "nvcore" in line]
    assert said == [], done.stderr
    security = subprocess.run([tool, "security", "--offline=true", "--no-pager", str(unit)], capture_output=True, text=True, timeout=60)
    score = re.search(r"nvcore\.service: ([\d.]+)", security.stdout)
    if security.returncode == 0 and score:  # older ones cannot judge a file
        assert float(score[1]) <= 5.0


def test_devices_are_allowed_by_names_that_systemd_understands() -> None:
    allowed = dict(re.findall(r"^DeviceAllow=(\S+) (\w+)$", UNIT.read_text(), re.MULTILINE))
    paths = {name for name in allowed if name.startswith("/")}
    # systemd.resource-control(5): a path is one node and has no wildcards, `char-NAME` is a whole group of /proc/devices. The names are
    # Linux's: "vfio" of /dev/vfio/GROUP, "vfio-dev" of /dev/vfio/devices/vfioN; /dev/vfio/vfio is one of the group misc.
    assert paths == {"/dev/vfio/vfio", "/dev/iommu"} and not any("*" in path or "?" in path for path in paths)
    assert allowed.keys() - paths == {"char-vfio", "char-vfio-dev"} and set(allowed.values()) == {"rw"}
    assert keys()["DevicePolicy"] == "closed"


def test_it_says_what_the_exit_codes_mean_and_where_things_lie() -> None:
    found = keys()
    assert found["Type"] == "notify" and found["Restart"] == "on-failure"
    assert found["SuccessExitStatus"] == "7" and found["RestartPreventExitStatus"] == "78"
    assert found["RuntimeDirectory"] == found["StateDirectory"] == "nvcore" and found["StateDirectoryMode"] == "0700"
    assert found["ExecStart"].split()[1:] == ["run"] and found["LimitMEMLOCK"] == "infinity"


def test_it_waits_longer_than_the_daemon_takes_to_stop() -> None:
    from nvcore.daemon.run import _STOP_LIMIT

    assert float(keys()["TimeoutStopSec"]) > _STOP_LIMIT + 15


def test_vgpus_are_there_before_whoever_starts_virtual_machines() -> None:
    unit = keys("Unit")
    assert unit["Before"].split() == ["libvirtd.service", "virtqemud.service"]
    assert "local-fs.target" in unit["After"].split() and not {"libvirtd.service", "virtqemud.service"} & set(unit["After"].split())
    assert keys("Install")["WantedBy"] == "multi-user.target"
