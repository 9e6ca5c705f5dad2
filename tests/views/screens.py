"""Four situations of a host as the daemon describes them; the same ones make the pictures of the documents. Two of them can be had with
software GPUs: test_real_screens.py compares those with what a daemon says."""

from __future__ import annotations

import copy
from typing import Any

NOW = 1_790_000_000.0

_GPU = {
    "source": "softgpu:ga100?vram=40G&address=0000:41:00.0",
    "address": "0000:41:00.0",
    "uuid": "GPU-5a100000-0000-4000-8000-000000000041",
    "chip": "GA100",
    "state": "running",
    "cause": None,
    "code": None,
    "remedy": None,
    "since": NOW - 273_900,
    "firmware": "570.144",
    "firmware_kind": "vendor",
    "generation": 1,
    "vram_total": 0x9D9B00000,
    "vram_owned": 0x960000000,
    "vram_quarantined": 0,
    "functions_total": 16,
    "functions_owned": 16,
    "functions_used": 2,
    "faults": {"channel": 0, "grant": 0, "gpu": 0, "lost": 0},
    "conflicts": [],
    "number": 0,
}
_COLUMNS = [
    {"key": "name", "heading": "vGPU", "side": "left"},
    {"key": "place", "heading": "GPU/VF", "side": "left"},
    {"key": "type", "heading": "TYPE", "side": "left"},
    {"key": "vm", "heading": "VM", "side": "left"},
    {"key": "state", "heading": "STATE", "side": "left"},
    {"key": "framebuffer_bytes", "heading": "FB", "side": "right"},
    {"key": "bring_up", "heading": "BRING-UP", "side": "left"},
    {"key": "started_at", "heading": "UP", "side": "right"},
    {"key": "reason", "heading": "REASON", "side": "left"},
]


def _vgpu(name: str, slot: int, vm: str | None, state: str = "running") -> dict[str, Any]:
    return {
        "name": name,
        "place": f"0000:41:00.0/{slot + 1}",
        "type": "A100-4C",
        "slot": slot,
        "vm": vm,
        "state": state,
        "framebuffer_bytes": 3776 << 20,
        "bring_up": "model convention",
        "started_at": NOW - 187_200,
        "reason": None,
    }


def _event(sequence: int, kind: str, text: str, gpu: str = "0000:41:00.0", **more: str) -> dict[str, Any]:
    return {"sequence": sequence, "time": 1.0 * sequence, "wall": NOW - 187_200 + sequence, "kind": kind, "gpu": gpu, "text": text, **more}


def all_well() -> dict[str, Any]:
    """Two GPUs, two vGPUs, nothing wrong."""
    second = {
        **copy.deepcopy(_GPU),
        "source": "softgpu:gh100?vram=80G&address=0000:c1:00.0",
        "address": "0000:c1:00.0",
        "uuid": "GPU-5a100000-0000-4000-8000-0000000000c1",
        "chip": "GH100",
        "number": 1,
        "vram_owned": 0,
        "vram_total": 0x13F3100000,
        "functions_total": None,
        "functions_owned": None,
        "functions_used": None,
    }
    events = []
    for number, name in ((1, "web-01"), (2, "web-02")):
        events.append(_event(2 * number, "vgpu", f"task of VF {number}: started"))
        events.append(_event(2 * number + 1, "vgpu", f"{name} (A100-4C) created", owner="vfio", vm=name, action="started"))
    return {
        "version": "0.1.0",
        "pid": 4711,
        "started_at": NOW - 274_000,
        "uptime_s": 274_000.0,
        "state": "running",
        "partial": False,
        "sets": ["demo"],
        "plugins_started": 3,
        "plugins_selected": 3,
        "deny": [{"pattern": "drm*", "matches": []}],
        "gpus": [copy.deepcopy(_GPU), second],
        "panels": [
            {
                "name": "vgpus",
                "schema": "nvcore.vgpu/1",
                "title": "vGPUs",
                "order": 20,
                "columns": _COLUMNS,
                "rows": [_vgpu("web-01", 0, "web-01"), _vgpu("web-02", 1, "web-02")],
            }
        ],
        "plugins": [],
        "events": events,
    }


def a_gpu_failed() -> dict[str, Any]:
    """The second GPU did not boot, and on the first one a vGPU that was declared could not be made again."""
    host = all_well()
    reason = "the vGPU task of function 1 crashed during the negotiation of the protocol (NVC-2215)"
    host["panels"][0]["rows"][0].update(state="failed", started_at=None, reason=reason)
    host["partial"] = True
    host["gpus"][0]["functions_used"] = 1
    cause = "GH100 did not boot 570.144: the FSP refused the chain of trust; expected error 0; seen error 0xa1"
    code, remedy = "NVC-2133", "reset the device: nvcore gpus reset GPU"
    host["gpus"][1].update(state="failed", code=code, cause=cause, remedy=remedy, uuid=None, generation=0)
    host["gpus"][1].update(vram_total=None, vram_owned=None, vram_quarantined=None)
    host["events"] = [
        _event(1, "state", f"failed: {cause}", "0000:c1:00.0", code=code, action=remedy),
        _event(2, "vgpu", "task of VF 1: crashed"),
        _event(3, "vgpu", "task of VF 2: started"),
        _event(4, "state", "running"),
    ]
    return host


def a_plugin_failed() -> dict[str, Any]:
    """A plugin cannot be imported."""
    host = all_well()
    host["partial"], host["plugins_selected"], host["sets"] = True, 4, []
    host["plugins"] = [
        {
            "name": "exporter",
            "state": "failed",
            "reason": "import of nvcore_exporter raised ImportError: no module prometheus_client",
            "remedy": "pip install prometheus_client",
        }
    ]
    return host


def hostile_names() -> dict[str, Any]:
    """A VM and a vGPU whose names try to be markup and terminal control."""
    host = all_well()
    host["panels"][0]["rows"] = [_vgpu("[red]not red[/red]", 0, "\x1b[31mevil\x1b]0;title\x07\u202e")]
    return host


SCREENS = {"all-well": all_well, "gpu-failed": a_gpu_failed, "plugin-failed": a_plugin_failed}
PLUGINS = [{"name": "fw_gsp", "state": "selected"}, {"name": "vfio", "state": "selected"}]
