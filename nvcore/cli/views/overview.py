"""The overview: one screen that answers "is it all right, and if not, what do I do".

Made from the document nvcore.status/1 alone. Strings that came from outside are put into `Text`, never into markup, with control
characters escaped. Nothing is cut: cells fold. What is unknown is shown as unknown, never as zero. One place gives a state its mark.
"""

from __future__ import annotations

import time
from collections import namedtuple
from typing import Any, Final

from rich.console import Group, RenderableType
from rich.table import Column, Table
from rich.text import Text

from nvcore.cli.live import event_line
from nvcore.cli.output import safe

# Characters of one character set.
Glyphs = namedtuple("Glyphs", "on off bad ok unknown full empty arrow wait")

# For terminals that say they can.
UNICODE: Final = Glyphs("●", "○", "✗", "✓", "–", "█", "░", "→", "◌")

ASCII: Final = Glyphs("*", "o", "X", "ok", "-", "#", ".", "->", "~")

_MARKS: Final = {
    ("on", "green"): "running ok started registered",
    ("wait", "yellow"): "booting starting resetting unloading stopping suspended",
    ("off", "dim"): "stopped released found disabled down",
    ("bad", "bold red"): "failed lost incompatible unsupported",
}
_EVENTS = 5
_BAR = 7  # cells
_GPU = {"GPU": "right", "BDF": "", "CHIP": "", "FIRMWARE": "", "STATE": "", "FB GRANTED": "", "VF USED": "right", "FAULT": "right"}


def overview(host: dict[str, Any], glyphs: Glyphs, *, now: float | None = None) -> RenderableType:
    """The whole screen. glyphs: with ASCII all of it is. now: seconds since the epoch, for ages."""
    pen = _Pen(glyphs, time.time() if now is None else now)
    parts: list[RenderableType] = [pen.head(host), pen.gpus(host)]
    parts += [line for gpu in host["gpus"] for line in pen.trouble(gpu)]
    for panel in host["panels"]:
        parts += [Text(), pen.panel(panel)]
    parts += [line for plugin in host.get("plugins", []) for line in pen.plugin(plugin)]
    return Group(*parts, Text(), pen.events(host["events"]))


def no_daemon(plugins: list[dict[str, Any]], socket: str, glyphs: Glyphs) -> RenderableType:
    """The screen without a daemon: what is installed, and what to do."""
    pen = _Pen(glyphs, 0.0)
    head = Text.assemble(("nvcore  ", "bold"), (f"{glyphs.bad} no daemon", "bold red"), " at ", pen.text(socket))
    names = ", ".join(f"{plugin['name']} ({plugin['state']})" for plugin in plugins) or "none installed"
    start = f"start it  nvcore run   or   systemctl start nvcore   {glyphs.arrow} nvcore explain NVC-8001"
    return Group(head, pen.text(f"plugins  {names}"), Text(start))


class _Pen:
    """Draws the parts of one screen."""

    def __init__(self, glyphs: Glyphs, now: float) -> None:
        self.glyphs, self.plain, self.now = glyphs, glyphs is ASCII, now

    def text(self, value: object, style: str = "") -> Text:
        """What came from outside, made inert; unknown where there is nothing."""
        if value is None or value == "":
            return Text(self.glyphs.unknown, style="dim")
        return Text(safe(str(value), self.plain), style=style)

    def head(self, host: dict[str, Any]) -> Text:
        text = Text.assemble((f"nvcore {host['version']}  ", "bold"), self.state(host["state"]), f" {duration(host['uptime_s'])}")
        if host["sets"]:
            text.append(f"  set {', '.join(host['sets'])}")
        started, selected = host["plugins_started"], host["plugins_selected"]
        text.append(f"  plugins {started}/{selected}", style="" if started == selected else "bold red")
        for deny in host["deny"]:
            found = ", ".join(deny["matches"][:3])
            text.append_text(self.text(f"  deny {deny['pattern']} "))
            text.append_text(self.text(f"{self.glyphs.bad} {found}", "bold red") if found else Text(self.glyphs.ok, "green"))
        return text

    def state(self, state: str) -> Text:
        glyph, style = mark_of(state)
        return self.text(f"{getattr(self.glyphs, glyph)} {state}", style)

    def gpus(self, host: dict[str, Any]) -> RenderableType:
        if not host["gpus"]:
            return Text("no GPU is configured: add [[gpu]] source = … to the configuration, or nvcore run --gpu SOURCE", style="dim")
        table = _table(_GPU.items())
        for gpu in host["gpus"]:
            firmware = f"{gpu['firmware']} synthetic" if gpu["firmware_kind"] == "synthetic" else gpu["firmware"]
            functions = f"{gpu['functions_used']}/{gpu['functions_total']}" if gpu["functions_total"] else None
            faults = sum(gpu["faults"].values())
            cells = [self.text(value) for value in (gpu["number"], gpu["address"] or gpu["source"], gpu["chip"], firmware)]
            cells += [self.state(gpu["state"]), self.bar(gpu["vram_owned"], gpu["vram_total"]), self.text(functions)]
            table.add_row(*cells, Text(str(faults), style="bold red" if faults else ""))
        return table

    def bar(self, used: int | None, total: int | None) -> Text:
        if used is None or not total:
            return self.text(None)
        cells = round(_BAR * used / total)
        return Text(f"{self.glyphs.full * cells}{self.glyphs.empty * (_BAR - cells)} {gib(used)}/{gib(total)}")

    def wrong(self, text: str, *remedies: str | None) -> list[Text]:
        """What is not well, and below it what to do."""
        return [self.text(text, "red"), *(self.text(f"     {self.glyphs.arrow} {remedy}") for remedy in remedies if remedy)]

    def trouble(self, gpu: dict[str, Any]) -> list[Text]:
        """The lines below the table for a GPU that is not well: code, cause, what to do."""
        explain = gpu["code"] and f"nvcore explain {gpu['code']}"
        lines = self.wrong(f"   {gpu['number']} {gpu['code'] or ''} {gpu['cause']}", gpu["remedy"], explain) if gpu["cause"] else []
        return lines + [self.text(f"   {gpu['number']} conflict: {text}", "red") for text in gpu["conflicts"]]

    def plugin(self, plugin: dict[str, Any]) -> list[Text]:
        """What is wrong with a plugin; nothing where it works, or was not selected."""
        name, lines = plugin["name"], []
        if plugin.get("remedy"):
            mark = getattr(self.glyphs, mark_of(plugin["state"])[0])
            lines = self.wrong(f"{mark} plugin {name} {plugin['state']}: {plugin['reason']}", plugin["remedy"])
        return lines + [self.text(f"{self.glyphs.bad} plugin {name} conflict: {text}", "red") for text in plugin.get("conflicts", ())]

    def panel(self, panel: dict[str, Any]) -> RenderableType:
        if panel.get("problem"):
            return self.text(f"{self.glyphs.bad} panel {panel['title']}: {panel['problem']}", "red")
        if not panel["rows"]:
            return self.text(f"no {panel['title']}", "dim")
        table = _table([(safe(column["heading"], self.plain), column["side"]) for column in panel["columns"]])
        for row in panel["rows"]:
            table.add_row(*(self.cell(column["key"], row.get(column["key"])) for column in panel["columns"]))
        return table

    def cell(self, key: str, value: object) -> Text:
        """A cell of a plugin's panel. The unit is in the key: `_bytes` are sizes, `_at` points in time (shown as ages), `state` gets its
        mark."""
        if value and key == "state":
            return self.state(str(value))
        if isinstance(value, bool):
            return Text("yes" if value else "no")
        if isinstance(value, int | float) and key.endswith(("_bytes", "_at")):
            return Text(gib(value) if key.endswith("_bytes") else duration(self.now - value))
        return self.text(value)

    def events(self, events: list[dict[str, Any]]) -> RenderableType:
        if not events:
            return Text("EVENTS none", style="dim")
        table = Table.grid(Column(no_wrap=True), Column(overflow="fold"), padding=(0, 1))
        for number, event in enumerate(events[-_EVENTS:]):
            table.add_row(Text("" if number else "EVENTS", style="bold"), self.text(event_line(event)))
        return table


def _table(headings: Any) -> Table:
    columns = [Column(heading, justify="right" if side == "right" else "left", overflow="fold") for heading, side in headings]
    return Table(*columns, box=None, pad_edge=False, padding=(0, 1), header_style="bold", show_edge=False)


def mark_of(state: str) -> tuple[str, str]:
    """How a state looks: which glyph (a field of Glyphs) and which style; one without a row is shown plainly, never hidden."""
    return next((mark for mark, states in _MARKS.items() if state in states.split()), ("unknown", "default"))


def duration(seconds: float) -> str:
    """ "42s", "5m07s", "3h04m", "3d04h"."""
    whole = int(max(0, seconds))
    for large, size, small, part in (("d", 86400, "h", 3600), ("h", 3600, "m", 60), ("m", 60, "s", 1)):
        if whole >= size:
            return f"{whole // size}{large}{whole % size // part:02}{small}"
    return f"{whole}s"


def gib(size: float) -> str:
    """Bytes as GiB in at most three digits: "36G", "3.7G", "0.5G"."""
    value = size / (1 << 30)
    return f"{value:.0f}G" if value >= 10 or value == int(value) else f"{value:.1f}G"
