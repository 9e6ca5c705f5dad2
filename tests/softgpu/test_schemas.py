"""Every JSON document of the noun `softgpu` fits the schema that the package brings, and has no key that stands in none."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from nvcore.api.errors import NvcoreError
from nvcore_softgpu.serve import report
from tests.fw_gsp.soft import bench
from tests.fw_gsp.test_session_objects import make_channel
from tests.fw_gsp.test_session_vgpu import NEEDS, TYPE, make
from tests.softgpu.test_serve_command import serving
from tests.softgpu.wire_kit import Wire

LISTINGS = ("conventions", "faults", "violations")
SCHEMAS = {entry.name: json.loads(entry.read_text("utf-8")) for entry in (files("nvcore_softgpu") / "schemas").iterdir()}
SERVED = {"generated_at": "2026-01-01T00:00:00Z", "messages": 0, "problems": []}
"""What `serve` puts beside what the model saw."""


def closed(rules: Any) -> Any:
    """The same schema, with no key allowed that it does not name: within a version keys are added, and here they must be declared."""
    if isinstance(rules, list):
        return [closed(rule) for rule in rules]
    if not isinstance(rules, dict):
        return rules
    inner = {key: closed(rule) for key, rule in rules.items()}
    return {"additionalProperties": False, **inner} if isinstance(inner.get("properties"), dict) and "type" in inner else inner


def fits(document: dict[str, Any], schema: str) -> None:
    """Hold a document against its schema."""
    assert document["schema"] == schema
    jsonschema.validate(document, closed(SCHEMAS[f"{schema.replace('/', '.')}.json"]))


def saw(device: Any) -> dict[str, Any]:
    """The report of a device, as a reader of its file has it; it fits."""
    document: dict[str, Any] = json.loads(json.dumps({**report(device), **SERVED}))
    fits(document, "nvcore.softgpu-report/1")
    return document


def test_each_schema_is_one_and_is_named_after_its_document() -> None:
    assert set(SCHEMAS) == {f"nvcore.softgpu-{name}.1.json" for name in (*LISTINGS, "report")}
    for name, rules in SCHEMAS.items():
        jsonschema.Draft202012Validator.check_schema(rules)
        assert rules["properties"]["schema"]["const"] == name.removesuffix(".1.json") + "/1"
        assert rules["required"] == list(rules["properties"])


@pytest.mark.parametrize("name", LISTINGS)
def test_a_listing_fits_its_schema(name: str) -> None:
    done = subprocess.run([sys.executable, "-P", "-m", "nvcore", "softgpu", name, "-o", "json"], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    document = json.loads(done.stdout)
    fits(document, f"nvcore.softgpu-{name}/1")
    assert len(document[name]) > 10


def test_the_file_that_serve_writes_fits_its_schema(tmp_path: Path) -> None:
    with serving(tmp_path / "gpu", "--fault", "zero:0x110094,read,3", "--report", str(tmp_path / "report")) as (process, _):
        wire = Wire(str(tmp_path / "gpu"))
        wire.hello()
        wire.post(0x1FA824, bytes(4))
        wire.read32(0x00FF00)
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
        wire.close()
    document = json.loads((tmp_path / "report").read_text())
    fits(document, "nvcore.softgpu-report/1")
    assert document["violations"] and document["unknown_registers"] and document["view"]["faults_armed"]
    assert document["view"]["wpr2"] is document["view"]["gsp"]["version"] is None


@pytest.mark.parametrize("chip", ["ga100", "gh100"])
def test_the_report_of_a_gpu_with_a_channel_fits_and_so_does_that_of_one_unloaded(chip: str) -> None:
    with bench(chip, "570.144") as gpu:
        session = gpu.open()
        tenant = session.open_tenant("t")
        _, channel = make_channel(gpu, session, tenant)
        session.family("channel").create_engine_object(channel)
        session.family("channel").enable(channel)
        view = saw(gpu.device)["view"]
        assert view["wpr2"] and view["dma_maps"] and view["channels"]
        assert view["gsp"]["objects"] and view["gsp"]["channels"] and view["gsp"]["roots"] and view["gsp"]["registry"]
        session.unload()
        assert saw(gpu.device)["view"]["wpr2"] is None


def test_the_report_of_a_vgpu_host_fits() -> None:
    with bench("ga100", "570.144", needs=NEEDS, vram="4G") as gpu:
        session = gpu.open()
        session.family("vgpu").upload_types([TYPE])
        family, tenant, spec, lease = make(gpu, session)
        family.configure(family.bootload(tenant, spec, lease), spec)
        view = saw(gpu.device)["view"]
        assert view["gsp"]["vgpus"] and view["gsp"]["vgpu_types"] and view["extents"]


def test_the_report_of_a_firmware_that_died_fits() -> None:
    with bench("ga100", "570.144") as gpu:
        session = gpu.open()
        gpu.inspector.arm("gsp-halt")
        with pytest.raises(NvcoreError):
            session.family("memory").create_space(session.open_tenant("t"))
        seen = saw(gpu.device)
        assert seen["faults"] == ["gsp-halt"] and seen["view"]["gsp"]["cause"]
