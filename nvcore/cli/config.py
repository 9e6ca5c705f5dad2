"""`nvcore config check|show`. Main thread. `check` loads the selected plugins, because their records judge their sections."""

from __future__ import annotations

from json import dumps
from typing import Any

from nvcore.cli.context import Context
from nvcore.config.model import Path


def check(context: Context) -> int:
    """`nvcore config check`."""
    from nvcore.plugins.host import PluginHost

    configuration = context.configuration()
    host = PluginHost("command", configuration=configuration)
    with context.aside():
        host.load(context.selection())  # raises ConfigError, exit 78
    for plugin in host.plugins:
        if plugin.broken or (plugin.state != "registered" and plugin.name in configuration.sections):
            why = plugin.reason or "; ".join(plugin.conflicts)
            unchecked = "" if plugin.state == "registered" else ", so no section of it could be checked"
            context.say(f"note: plugin {plugin.name} is {plugin.state}{unchecked}: {why}")
    host.teardown()
    context.out(f"ok: {', '.join(configuration.files) or 'no file, defaults only'}\n")
    return 7 if any(plugin.broken for plugin in host.plugins) else 0


def show(context: Context) -> int:
    """`nvcore config show`."""
    configuration = context.configuration()
    plugins = {**configuration.plugins._asdict(), **configuration.sections}
    values = _leaves((), {"host": configuration.host._asdict(), "plugins": plugins, "gpu": configuration.tree.get("gpu", [])})
    found = [{"key": ".".join(map(str, path)), "value": value, "origin": configuration.where(*path)} for path, value in values.items()]
    if context.output[:4] != "json":  # texts, numbers, truths and lists are written the same in TOML
        found = [{**row, "value": None if row["value"] is None else dumps(row["value"], ensure_ascii=False, default=str)} for row in found]
    context.view("config", found, "wide" if context.tabular and context.given.flag("origin") else None, files=configuration.files)
    return 0


def _leaves(path: Path, value: Any) -> dict[Path, Any]:
    """Every value in effect by its path: the core's keys with their defaults, then what else the files say."""
    if not isinstance(value, dict) and path != ("gpu",):
        return {path: value}
    inner = value.items() if isinstance(value, dict) else enumerate(value)
    return {at: leaf for key, one in inner for at, leaf in _leaves((*path, key), one).items()}
