"""The status screen: golden pictures, and what must hold at every width. `NVCORE_UPDATE_GOLDEN=1` writes the pictures anew."""

from __future__ import annotations

import io
import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console, RenderableType

from nvcore.cli.args import Arguments
from nvcore.cli.context import Context
from nvcore.cli.main import main
from nvcore.cli.status import _tables
from nvcore.cli.views.overview import ASCII, UNICODE, duration, gib, mark_of, no_daemon, overview

from .screens import NOW, PLUGINS, SCREENS, all_well, hostile_names

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture(autouse=True)
def utc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()


def svg(view: RenderableType, width: int) -> str:
    console = Console(
        record=True,
        width=width,
        height=50,  # with a width alone and TERM=dumb rich takes 80 columns
        file=io.StringIO(),
        force_terminal=True,
        color_system="truecolor",
        legacy_windows=False,
        highlight=False,
    )
    console.print(view)
    return console.export_svg(title="nvcore status", unique_id="nvcore")


def text(view: RenderableType, width: int) -> str:
    console = Console(width=width, file=io.StringIO(), force_terminal=False, highlight=False, markup=False)
    console.print(view)
    return console.file.getvalue()  # type: ignore[attr-defined,no-any-return]


def compare(name: str, made: str) -> None:
    path = GOLDEN / f"{name}.svg"
    if os.environ.get("NVCORE_UPDATE_GOLDEN"):
        path.write_text(made)
    assert made == path.read_text(), f"{name}: the picture changed; look at it, then run with NVCORE_UPDATE_GOLDEN=1"


@pytest.mark.parametrize("name", SCREENS)
def test_screens_look_as_agreed_at_120_columns(name: str) -> None:
    compare(name, svg(overview(SCREENS[name](), UNICODE, now=NOW), 120))


def test_the_screen_without_a_daemon_looks_as_agreed() -> None:
    compare("no-daemon", svg(no_daemon(PLUGINS, "/run/nvcore/nvcore.sock", UNICODE), 120))


@pytest.mark.parametrize("make", SCREENS.values(), ids=SCREENS)
@pytest.mark.parametrize("width", [40, 60, 80, 100, 120, 160, 250])
def test_nothing_is_cut_at_any_width(make: Callable[[], dict[str, Any]], width: int) -> None:
    host = make()
    seen = "".join(text(overview(host, UNICODE, now=NOW), width).split())
    assert "…" not in seen
    if width >= 100:
        for gpu in host["gpus"]:
            assert gpu["address"] in seen
            for key in ("code", "cause", "remedy"):
                assert "".join((gpu[key] or "").split()) in seen


def test_a_gpu_that_is_not_well_has_its_code_cause_and_remedy_on_the_screen() -> None:
    seen = text(overview(SCREENS["gpu-failed"](), UNICODE, now=NOW), 120)
    assert "✗ failed" in seen and "NVC-2133" in seen and "nvcore gpus reset" in seen and "nvcore explain NVC-2133" in seen


def test_every_code_on_a_screen_has_its_page() -> None:
    screens = [no_daemon(PLUGINS, "/run/x", UNICODE), *(overview(make(), UNICODE, now=NOW) for make in SCREENS.values())]
    codes = {code for screen in screens for code in re.findall(r"NVC-\d+", text(screen, 160))}
    assert {"NVC-2133", "NVC-8001"} <= codes
    for code in codes:
        assert main(["explain", code]) == 0


def test_what_is_unknown_is_shown_as_unknown_and_never_as_zero() -> None:
    host = SCREENS["gpu-failed"]()
    host["gpus"][1].update(firmware=None, firmware_kind=None)
    row = next(line for line in text(overview(host, UNICODE, now=NOW), 120).splitlines() if "0000:c1" in line)
    assert row.split()[:4] == ["1", "0000:c1:00.0", "GH100", "–"]
    assert "0G" not in row and "0/0" not in row


def test_markup_and_control_characters_in_names_are_inert() -> None:
    seen = text(overview(hostile_names(), UNICODE, now=NOW), 160)
    assert "[red]not red[/red]" in seen
    assert "\x1b" not in seen and "\x07" not in seen and "\u202e" not in seen
    assert "\\x1b[31mevil" in seen


def test_the_ascii_screen_is_ascii() -> None:
    for make in (*SCREENS.values(), hostile_names):
        assert text(overview(make(), ASCII, now=NOW), 120).isascii()
    assert text(no_daemon(PLUGINS, "/run/x", ASCII), 120).isascii()


def test_a_synthetic_image_says_so_on_the_screen() -> None:
    host = all_well()
    host["gpus"][0]["firmware_kind"] = "synthetic"
    assert "570.144 synthetic" in text(overview(host, UNICODE, now=NOW), 160)


def test_denied_things_that_are_there_are_named() -> None:
    host = all_well()
    host["deny"] = [{"pattern": "drm*", "matches": ["nvcore_drm"]}]
    assert "deny drm* ✗ nvcore_drm" in text(overview(host, UNICODE, now=NOW), 160)


def test_a_panel_that_failed_and_an_empty_host_are_said() -> None:
    host = all_well()
    host["panels"][0]["problem"] = "ValueError: x"
    host["gpus"], host["events"] = [], []
    seen = text(overview(host, UNICODE, now=NOW), 120)
    assert "panel vGPUs: ValueError: x" in seen and "no GPU is configured" in seen and "EVENTS none" in seen


CONFLICT = "BusOffer 'toy' is claimed by vfio and other; neither has it (NVC-1114); choose with -p no:NAME"


def test_a_plugin_that_works_but_for_a_conflict_is_named_with_it() -> None:
    host = all_well()
    host["plugins"] = [{"name": "vfio", "state": "started", "reason": None, "remedy": None, "conflicts": [CONFLICT]}]
    seen = text(overview(host, UNICODE, now=NOW), 160)
    assert f"plugin vfio conflict: {CONFLICT}" in " ".join(seen.split())


def test_without_rich_all_that_is_wrong_is_said_too(capsys: pytest.CaptureFixture[str]) -> None:
    host = all_well()
    broken = {"name": "broken", "state": "failed", "reason": "raised\x1b[31m", "remedy": "upgrade it", "conflicts": []}
    host["plugins"] = [broken, {"name": "vfio", "state": "started", "reason": None, "remedy": None, "conflicts": [CONFLICT]}]
    host["panels"][0]["problem"] = "ValueError: x"
    host["deny"] = [{"pattern": "drm*", "matches": ["nvcore_drm"]}]
    _tables(Context(Arguments()), host)
    seen = capsys.readouterr().out
    for words in (
        "plugin broken failed: raised\\x1b[31m; do: upgrade it\n", f"plugin vfio conflict: {CONFLICT}\n", "panel vGPUs: ValueError: x\n",
        "deny drm*: nvcore_drm\n", *(event["text"] for event in host["events"][-5:]),
    ):  # fmt: skip
        assert words in seen


@pytest.mark.parametrize(
    ("seconds", "words"), [(0, "0s"), (59.9, "59s"), (61, "1m01s"), (3 * 3600 + 240, "3h04m"), (273_900, "3d04h"), (-5, "0s")]
)
def test_durations(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_sizes_and_unknown_states() -> None:
    assert [gib(size << 20) for size in (3776, 40960, 512, 36 << 10)] == ["3.7G", "40G", "0.5G", "36G"]
    assert mark_of("a-new-state") == ("unknown", "default")
