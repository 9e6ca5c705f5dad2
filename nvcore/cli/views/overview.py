"""The overview: one screen that answers "is it all right, and if not, what do I do".

Made from `io.nvcore.Host.Describe` alone. Strings that came from outside are put into `Text`, never into markup, with control characters
escaped. Nothing is cut: cells fold. What is unknown is shown as unknown, never as zero.
"""

from __future__ import annotations

import time
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from nvcore.cli.output import safe
from nvcore.cli.views.theme import Glyphs, duration, gib, mark_of

__all__ = ["no_daemon", "overview"]

_EVENTS = 5


def overview(host: dict[str, Any], glyphs: Glyphs, *, now: float | None = None, plain: bool = False) -> RenderableType:
    """The whole screen. now: seconds since the epoch, for ages; plain: ASCII only."""
    moment = time.time() if now is None else now
    parts: list[RenderableType] = [_head(host, glyphs), _gpus(host, glyphs, plain)]
    parts += [line for gpu in host["gpus"] for line in _trouble(gpu, glyphs, plain)]
    for panel in host["panels"]:
        parts += [Text(), _panel(panel, glyphs, moment, plain)]
    parts += [line for plugin in host.get("plugins", []) for line in _plugin_trouble(plugin, glyphs, plain)]
    parts += [Text(), _events(host["events"], plain)]
    return Group(*parts)


def no_daemon(plugins: list[dict[str, Any]], socket: str, glyphs: Glyphs, plain: bool) -> RenderableType:
    """The screen without a daemon: what is installed, and what to do."""
    head = Text.assemble(("nvcore  ", "bold"), (f"{glyphs.bad} no daemon", "bold red"), f" at {safe(socket, plain)}")
    names = ", ".join(f"{safe(str(plugin['name']), plain)} ({plugin['state']})" for plugin in plugins) or "none installed"
    lines = [
        head,
        Text(f"plugins  {names}"),
        Text(f"start it  nvcore run   or   systemctl start nvcore   {glyphs.arrow} nvcore explain NVC-8001"),
    ]
    return Group(*lines)


def _head(host: dict[str, Any], glyphs: Glyphs) -> Text:
    mark = mark_of(host["state"])
    text = Text.assemble((f"nvcore {host['version']}  ", "bold"), (f"{getattr(glyphs, mark.glyph)} {host['state']}", mark.style))
    text.append(f" {duration(host['uptime_s'])}")
    if host["sets"]:
        text.append(f"  set {', '.join(host['sets'])}")
    started, selected = host["plugins_started"], host["plugins_selected"]
    text.append(f"  plugins {started}/{selected}", style="" if started == selected else "bold red")
    for deny in host["deny"]:
        clean = not deny["matches"]
        text.append(f"  deny {deny['pattern']} ")
        text.append(
            glyphs.ok if clean else f"{glyphs.bad} {', '.join(map(str, deny['matches'][:3]))}", style="green" if clean else "bold red"
        )
    return text


def _table(headings: list[tuple[str, str]]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 1), header_style="bold", show_edge=False)
    for heading, side in headings:
        table.add_column(heading, justify="right" if side == "right" else "left", overflow="fold", no_wrap=False)
    return table


def _state(state: str, glyphs: Glyphs, plain: bool) -> Text:
    mark = mark_of(state)
    return Text(f"{getattr(glyphs, mark.glyph)} {safe(state, plain)}", style=mark.style)


def _bar(used: int | None, total: int | None, glyphs: Glyphs) -> Text:
    if used is None or not total:
        return Text(glyphs.unknown, style="dim")
    cells = round(7 * used / total)
    return Text(f"{glyphs.full * cells}{glyphs.empty * (7 - cells)} {gib(used)}/{gib(total)}")


def _gpus(host: dict[str, Any], glyphs: Glyphs, plain: bool) -> RenderableType:
    if not host["gpus"]:
        return Text("no GPU is configured: add [[gpu]] source = … to the configuration, or nvcore run --gpu SOURCE", style="dim")
    table = _table(
        [("GPU", "right"), ("BDF", ""), ("CHIP", ""), ("FIRMWARE", ""), ("STATE", ""), ("FB USED", ""), ("VF", "right"), ("FAULT", "right")]
    )
    for gpu in host["gpus"]:
        firmware = gpu["firmware"] or glyphs.unknown
        if gpu["firmware_kind"] == "synthetic":
            firmware += " synthetic"
        total, owned = gpu["functions_total"], gpu["functions_owned"]
        faults = sum(gpu["faults"].values())
        table.add_row(
            str(gpu["number"]),
            safe(gpu["address"] or gpu["source"], plain),
            gpu["chip"] or glyphs.unknown,
            safe(firmware, plain),
            _state(gpu["state"], glyphs, plain),
            _bar(gpu["vram_owned"], gpu["vram_total"], glyphs),
            f"{owned}/{total}" if total else glyphs.unknown,
            Text(str(faults), style="bold red" if faults else ""),
        )
    return table


def _trouble(gpu: dict[str, Any], glyphs: Glyphs, plain: bool) -> list[Text]:
    """The lines below the table for a GPU that is not well: code, cause, what to do."""
    lines = []
    if gpu["cause"]:
        lines.append(Text(f"   {gpu['number']} {gpu['code'] or ''} {safe(gpu['cause'], plain)}", style="red"))
        if gpu["remedy"]:
            lines.append(Text(f"     {glyphs.arrow} {safe(gpu['remedy'], plain)}"))
        if gpu["code"]:
            lines.append(Text(f"     {glyphs.arrow} nvcore explain {gpu['code']}"))
    lines += [Text(f"   {gpu['number']} conflict: {safe(text, plain)}", style="red") for text in gpu["conflicts"]]
    return lines


def _plugin_trouble(plugin: dict[str, Any], glyphs: Glyphs, plain: bool) -> list[Text]:
    if plugin["state"] not in ("failed", "incompatible"):
        return []
    lines = [
        Text(f"{glyphs.bad} plugin {safe(str(plugin['name']), plain)} {plugin['state']}: {safe(str(plugin['reason']), plain)}", style="red")
    ]
    if plugin.get("remedy"):
        lines.append(Text(f"     {glyphs.arrow} {safe(str(plugin['remedy']), plain)}"))
    return lines


def _panel(panel: dict[str, Any], glyphs: Glyphs, now: float, plain: bool) -> RenderableType:
    if panel.get("problem"):
        return Text(f"{glyphs.bad} panel {safe(panel['title'], plain)}: {safe(panel['problem'], plain)}", style="red")
    if not panel["rows"]:
        return Text(f"no {safe(panel['title'], plain)}", style="dim")
    table = _table([(safe(column["heading"], plain), column["side"]) for column in panel["columns"]])
    for row in panel["rows"]:
        table.add_row(*(_cell(column["key"], row.get(column["key"]), glyphs, now, plain) for column in panel["columns"]))
    return table


def _cell(key: str, value: object, glyphs: Glyphs, now: float, plain: bool) -> Text:
    """A cell of a plugin's panel. The unit is in the key: `_bytes` are sizes, `_at` points in time (shown as ages), `state` gets its
    mark."""
    if value is None or value == "":
        return Text(glyphs.unknown, style="dim")
    if key == "state":
        return _state(str(value), glyphs, plain)
    if isinstance(value, bool):
        return Text("yes" if value else "no")
    if key.endswith("_bytes") and isinstance(value, int | float):
        return Text(gib(value))
    if key.endswith("_at") and isinstance(value, int | float):
        return Text(duration(now - value))
    return Text(safe(str(value), plain))


def _events(events: list[dict[str, Any]], plain: bool) -> RenderableType:
    from nvcore.cli.events import line

    if not events:
        return Text("EVENTS none", style="dim")
    table = Table.grid(padding=(0, 1))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for number, event in enumerate(events[-_EVENTS:]):
        table.add_row(Text("" if number else "EVENTS", style="bold"), Text(safe(line(event), plain)))
    return table
