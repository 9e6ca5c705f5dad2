"""`nvcore status [--watch[=SECONDS]]`: the overview, drawn by rich where it is installed and by plain tables where not. Main thread.

JSON first: every form is made from the daemon's one answer; a host without a daemon is one more thing to show.
"""

from __future__ import annotations

import time
from typing import Any

from nvcore.api.errors import UnreachableError, UsageError
from nvcore.cli.context import Context
from nvcore.cli.live import event_line
from nvcore.cli.output import document


def status(context: Context) -> int:
    """Show the state once, or with `--watch` until interrupted."""
    color = context.given.text("color") or "auto"
    if color not in ("auto", "always", "never"):
        raise UsageError(f"--color {color} has no meaning", expected="auto, always or never")
    if context.output == "name":
        raise UsageError("nvcore status has no names", expected="table, json or jsonl")
    watch, seconds = context.given.flag("watch"), context.given.seconds("watch", 2, least=0.1, most=86400, wrong="has no meaning")
    console = _console(context, color) if context.tabular else None
    if watch and console is not None and context.stdout.isatty():
        return _live(context, console, seconds)
    output = "jsonl" if watch and context.output == "json" else context.output
    while True:
        state = _ask(context)
        if output[:4] == "json":
            context.stdout.write(document("nvcore.status/1", state, indent=2 if output == "json" else None))
        elif console is not None:
            with console.capture() as drawn:  # a closed pipe is this program's matter, not the console's, which would exit 1
                console.print(_screen(context, state))
            context.stdout.write("\n".join(line.rstrip(" ") for line in drawn.get().split("\n")))
        else:
            _tables(context, state)
        context.stdout.flush()
        if not watch:
            return 5 if "error" in state else 7 if state["partial"] else 0
        time.sleep(seconds)


def _ask(context: Context) -> dict[str, Any]:
    """The document of schema nvcore.status/1: the daemon's description and its plugins, or why there is none."""
    try:
        plugins = context.call("io.nvcore.Plugin.List")["plugins"]
        return {**context.call("io.nvcore.Host.Describe"), "plugins": plugins}
    except UnreachableError as error:
        return {"state": "no daemon", "error": error.as_dict(), "plugins": [plugin.as_dict() for plugin in context.plugins()]}


def _screen(context: Context, state: dict[str, Any]) -> Any:
    from nvcore.cli.views.overview import ASCII, UNICODE, no_daemon, overview

    glyphs = ASCII if context.given.flag("ascii") or context.plain else UNICODE
    return no_daemon(state["plugins"], context.socket, glyphs) if "error" in state else overview(state, glyphs)


def _live(context: Context, console: Any, seconds: float) -> int:
    """Again and again, and when the terminal's size changes, on a screen of its own, given back whatever happens. A daemon that goes and
    comes back is shown as that."""
    import signal
    import sys

    from rich.live import Live

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # by way of the end of `with`
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGWINCH})  # taken below
    with Live(console=console, screen=True, auto_refresh=False) as live:
        while True:
            console.width = context.columns or console.width
            live.update(_fitted(console, _screen(context, _ask(context))), refresh=True)
            signal.sigtimedwait({signal.SIGWINCH}, seconds)


def _fitted(console: Any, screen: Any) -> Any:
    """What fits on the terminal, with a word on what does not."""
    from rich.segment import Segments

    lines = console.render_lines(screen, pad=False, new_lines=True)
    more = len(lines) - console.height
    if more > 0:
        word = f"{more + 1} more lines: make the window higher"
        lines[console.height - 1 :] = console.render_lines(word, style=console.get_style("reverse"))
    return Segments(segment for line in lines for segment in line)


def _console(context: Context, color: str) -> Any:
    """A console on standard output, None where rich is not installed. Where it is no terminal: wide, so that nothing folds in a pipe.

    What `--color` says goes before NO_COLOR and FORCE_COLOR, which rich reads.
    """
    try:
        from rich.console import Console
    except ImportError:
        return None
    terminal = context.stdout.isatty()
    no_color, force = {"always": (False, True), "never": (True, terminal)}.get(color, (None, None))
    return Console(
        file=context.stdout, width=context.columns or (None if terminal else 160), no_color=no_color, force_terminal=force,
        highlight=False, markup=False, emoji=False, legacy_windows=False,
    )  # fmt: skip


def _tables(context: Context, state: dict[str, Any]) -> None:
    """The same facts without rich."""
    context.say("rich is not installed: plain tables (pip install 'nvcore[status]' for the screen)")
    if "error" in state:
        context.out(f"no daemon at {context.socket}: {state['error']['remedy']}\n")
        return
    context.out(f"nvcore {state['version']} {state['state']} plugins {state['plugins_started']}/{state['plugins_selected']}\n")
    context.view("gpus", state["gpus"], "wide")
    for panel in state["panels"]:
        columns = [(column["key"], column["heading"], column["side"]) for column in panel["columns"]]
        if panel["problem"]:
            context.line(f"panel {panel['title']}: {panel['problem']}")
        else:
            context.show("table", schema="", key="", rows=panel["rows"], columns=columns)
    lines = [f"plugin {row['name']} {row['state']}: {row['reason']}; do: {row['remedy']}" for row in state["plugins"] if row["remedy"]]
    lines += [f"plugin {row['name']} conflict: {text}" for row in state["plugins"] for text in row["conflicts"]]
    lines += [f"deny {deny['pattern']}: {', '.join(deny['matches']) or 'nothing matches'}" for deny in state["deny"]]
    for line in (*lines, *map(event_line, state["events"][-5:])):
        context.line(line)
