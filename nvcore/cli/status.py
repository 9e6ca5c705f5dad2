"""`nvcore status [--watch[=SECONDS]]`: the overview, drawn by rich where it is installed and by plain tables where not. Main thread.

JSON first: every form is made from the one answer of the daemon.
"""

from __future__ import annotations

from nvcore.cli.args import parse
from nvcore.cli.output import OUTPUT_OPTIONS, chosen, document

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from nvcore.api.errors import UnreachableError
    from nvcore.cli.context import Context

__all__ = ["command"]

_HELP = """usage: nvcore status [--watch[=SECONDS]] [-o table|json|jsonl] [--ascii] [--color auto|always|never]

One screen: GPUs, what plugins show of them, the last events, and for whatever is wrong its code and remedy. With --watch again every 2 s
(or as said) until interrupted; with JSON then one object a line.
"""
_OPTIONS = {"--watch": "watch=", "-w": "watch=", "--ascii": "ascii?", "--color": "color", "--help": "help?", "-h": "help?"}


def command(argv: Sequence[str], context: Context) -> int:
    """The overview. Exit code 7 when some plugin or device failed, 5 without a daemon."""
    given = parse(argv, {**OUTPUT_OPTIONS, **_OPTIONS}, words=(0, 0))
    if given.flag("help"):
        context.out(_HELP)
        return 0
    output = chosen(given.values)
    from nvcore.api.errors import UnreachableError, UsageError

    color = given.text("color") or "auto"
    if color not in ("auto", "always", "never"):
        raise UsageError(f"--color {color} has no meaning", expected="auto, always or never")
    seconds = _seconds(given.text("watch")) if given.flag("watch") else None
    drawing = _Drawing(context, color, ascii=given.flag("ascii") or context.plain)
    try:
        if seconds is not None:
            return _watch(context, output, drawing, seconds)
        host = _describe(context)
    except UnreachableError as error:
        return _no_daemon(context, output, drawing, error)
    _print(context, output, drawing, host)
    return 7 if host["partial"] else 0


def _seconds(text: str | None) -> float:
    from nvcore.api.errors import UsageError

    try:
        seconds = float(text or "2")
    except ValueError:
        seconds = -1.0
    if not 0.1 <= seconds <= 86400:
        raise UsageError(f"--watch={text} has no meaning", expected="0.1 to 86400 seconds")
    return seconds


def _describe(context: Context) -> dict[str, Any]:
    host = context.call("io.nvcore.Host.Describe")
    host["plugins"] = context.call("io.nvcore.Plugin.List")["plugins"]
    return host


def _print(context: Context, output: str, drawing: _Drawing, host: dict[str, Any]) -> None:
    if output == "json":
        context.stdout.write(document("nvcore.status/1", host))
    elif output == "jsonl":
        import json

        context.stdout.write(json.dumps({"schema": "nvcore.status/1", **host}) + "\n")
    else:
        drawing.show(host)
    context.stdout.flush()


def _watch(context: Context, output: str, drawing: _Drawing, seconds: float) -> int:
    """Again and again. A daemon that goes away and comes back is shown as that."""
    import time

    if output == "json":
        output = "jsonl"
    live = output in ("table", "wide") and context.stdout.isatty() and drawing.begin_live()
    try:
        while True:
            host = _describe(context)
            if live:
                drawing.update(host)
            else:
                _print(context, output, drawing, host)
            time.sleep(seconds)
    finally:
        drawing.end_live()


def _no_daemon(context: Context, output: str, drawing: _Drawing, error: UnreachableError) -> int:
    from nvcore.plugins.index import scan
    from nvcore.plugins.select import inventory, select

    plugins = [plugin.as_dict() for plugin in select(inventory(scan()), context.selection())]
    if output in ("json", "jsonl"):
        content = {"state": "no daemon", "error": error.as_dict(), "plugins": plugins}
        context.stdout.write(document("nvcore.status/1", content))
    else:
        drawing.show_no_daemon(plugins, context.socket, error)
    return error.exit_code


class _Drawing:
    """Draws with rich, or without it."""

    def __init__(self, context: Context, color: str, ascii: bool) -> None:
        self._context, self._color, self._ascii = context, color, ascii
        self._live: Any = None

    def _console(self) -> Any:
        """A console on standard output, None where rich is not installed. Not a terminal: wide, so that nothing folds in a pipe."""
        try:
            from rich.console import Console
        except ImportError:
            return None
        import os

        terminal = self._context.stdout.isatty()
        columns = self._context.columns or (None if terminal else 160)
        no_color = self._color == "never" or (self._color == "auto" and bool(os.environ.get("NO_COLOR")))
        force = True if self._color == "always" else (None if terminal else False)
        return Console(
            file=self._context.stdout, width=columns, no_color=no_color, force_terminal=force, highlight=False, markup=False, emoji=False
        )

    def _render(self, host: dict[str, Any]) -> Any:
        from nvcore.cli.views.overview import overview
        from nvcore.cli.views.theme import ASCII, UNICODE

        return overview(host, ASCII if self._ascii else UNICODE, plain=self._ascii)

    def show(self, host: dict[str, Any]) -> None:
        """Print the screen once."""
        console = self._console()
        if console is None:
            _plain(self._context, host)
        else:
            console.print(self._render(host))

    def show_no_daemon(self, plugins: list[dict[str, Any]], socket: str, error: UnreachableError) -> None:
        """Print the screen of a host without a daemon."""
        console = self._console()
        if console is None:
            self._context.say(f"no daemon at {socket}: {error.remedy}")
            return
        from nvcore.cli.views.overview import no_daemon
        from nvcore.cli.views.theme import ASCII, UNICODE

        console.print(no_daemon(plugins, socket, ASCII if self._ascii else UNICODE, self._ascii))

    def begin_live(self) -> bool:
        """Take the terminal; whether there is one and rich."""
        console = self._console()
        if console is None:
            return False
        from rich.live import Live

        self._live = Live(console=console, screen=True, auto_refresh=False, vertical_overflow="crop")
        self._live.start()
        return True

    def update(self, host: dict[str, Any]) -> None:
        """Draw anew."""
        self._live.update(self._render(host), refresh=True)

    def end_live(self) -> None:
        """Give the terminal back."""
        if self._live is not None:
            self._live.stop()


def _plain(context: Context, host: dict[str, Any]) -> None:
    """The same facts without rich."""
    context.say("rich is not installed: plain tables (pip install 'nvcore[status]' for the screen)")
    context.out(f"nvcore {host['version']} {host['state']} plugins {host['plugins_started']}/{host['plugins_selected']}\n")
    gpus = [(key, key.upper(), "left") for key in ("address", "chip", "firmware", "state", "code", "cause", "remedy")]
    context.show("table", schema="", key="", rows=host["gpus"], columns=gpus)
    for panel in host["panels"]:
        context.show(
            "table", schema="", key="", rows=panel["rows"], columns=[(c["key"], c["heading"], c["side"]) for c in panel["columns"]]
        )
