"""The pictures of the documents are of hosts that exist: a daemon on the same two software GPUs shows the same screen, word by word."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("nvcore_softgpu")
pytest.importorskip("nvcore_vfio")

from nvcore.cli.views.overview import UNICODE, overview
from tests.daemon.running import GPU0, GPU1, SET, Running, images

from .screens import NOW, a_gpu_failed, all_well
from .test_overview import text

WIDTH = 250  # nothing folds


def words(firmware: Path, *faults: str) -> list[str]:
    sources = [f"{gpu}&firmware={firmware}{fault}" for gpu, fault in zip((GPU0, GPU1), faults, strict=True)]
    return [*SET, *(word for source in sources for word in ("--gpu", source))]


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Running]:
    firmware = images(tmp_path / "images")
    made = Running(*words(firmware, "", ""), firmware=firmware, config="[plugins]\ndeny = ['drm*']\n")
    try:
        yield made.start()
    finally:
        made.close()


def same(real: dict[str, Any], picture: dict[str, Any]) -> None:
    """Compare what the eye sees, points in time and the kind of the images aside."""
    for gpu in real["gpus"]:
        assert gpu["firmware_kind"] == "synthetic"
        gpu["firmware_kind"] = "vendor"
    for row in real["panels"][0]["rows"]:
        row["started_at"] = row["started_at"] and NOW - 187_200
    real["uptime_s"] = picture["uptime_s"]
    shown = [text(overview({**one, "events": []}, UNICODE, now=NOW), WIDTH) for one in (real, picture)]
    assert shown[0] == shown[1]
    told = [{key: value for key, value in event.items() if key not in ("sequence", "time", "wall", "function")} for event in real["events"]]
    for event in picture["events"]:
        assert {key: value for key, value in event.items() if key not in ("sequence", "time", "wall")} in told
    for gpu, drawn in zip(real["gpus"], picture["gpus"], strict=True):
        assert gpu.keys() == drawn.keys()
        assert [gpu[key] for key in gpu if key.startswith("functions_")] == [drawn[key] for key in gpu if key.startswith("functions_")]
    assert real["partial"] == picture["partial"]


def test_the_pictures_show_what_daemons_say(host: Running) -> None:
    assert [gpu["functions_used"] for gpu in host.json("status")["gpus"]] == [0, None], "the pool is no vGPU"
    for name in ("web-01", "web-02"):
        host.run("vgpu", "create", "--type", "A100-4C", "--name", name, "--vm", name)
    same(host.json("status"), all_well())
    assert "VF USED" in host.run("status").stdout and " 2/16 " in host.run("status").stdout
    host.run("stop")
    assert host.wait() == 0
    before = words(Path(host.env["NVCORE_FIRMWARE"]), "", "")
    host.words[: len(before)] = words(Path(host.env["NVCORE_FIRMWARE"]), "&fault=vgpu-crash", "&fault=fsp-error")
    host.manager.close()
    host.start()
    same(host.json("status", code=7), a_gpu_failed())
