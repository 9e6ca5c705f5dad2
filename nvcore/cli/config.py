"""`nvcore config check|show`. Main thread. `check` loads the selected plugins, because their records judge their sections."""

from __future__ import annotations

from nvcore.cli.nouns import rows

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from nvcore.cli.args import Arguments
    from nvcore.cli.context import Context
    from nvcore.cli.nouns import Noun
    from nvcore.config.lines import Path
    from nvcore.config.model import Configuration

__all__ = ["NOUNS"]


def _check(given: Arguments, output: str, context: Context) -> int:
    from nvcore.plugins.host import PluginHost

    configuration = context.configuration()
    host = PluginHost("command", configuration=configuration)
    with context.aside():
        host.load(context.selection())  # raises ConfigError, exit 78
    unjudged = [plugin.name for plugin in host.plugins if plugin.state != "registered" and plugin.name in configuration.sections()]
    host.teardown()
    for name in unjudged:
        context.say(f"note: section [plugins.{name}] could not be checked: the plugin is {host.plugin(name).state}")
    context.out(f"ok: {', '.join(configuration.files) or 'no file, defaults only'}\n")
    return 7 if any(plugin.broken for plugin in host.plugins) else 0


def _show(given: Arguments, output: str, context: Context) -> int:
    from json import dumps

    found = _values(context.configuration())
    if output[:4] != "json":  # texts, numbers, truths and lists are written the same in TOML
        found = [{**row, "value": None if row["value"] is None else dumps(row["value"], ensure_ascii=False, default=str)} for row in found]
    output = "wide" if output == "table" and given.flag("origin") else output
    context.view(output, "config", found, files=context.configuration().files)
    return 0


def _values(configuration: Configuration) -> list[dict[str, Any]]:
    """Every value in effect: the core's keys with their defaults, then what else the files say."""
    values: dict[Path, object] = {("host", key): value for key, value in configuration.host._asdict().items()}
    values.update({("plugins", key): value for key, value in configuration.plugins._asdict().items()})
    for at, gpu in enumerate(configuration.tree.get("gpu", [])):
        values.update({("gpu", at, key): value for key, value in gpu.items()})
    for name in configuration.sections():
        values.update(_leaves(("plugins", name), configuration.tree["plugins"][name]))
    return [{"key": ".".join(map(str, path)), "value": value, "origin": configuration.where(*path)} for path, value in values.items()]


def _leaves(path: Path, table: dict[str, Any]) -> dict[Path, object]:
    found: dict[Path, object] = {}
    for key, value in table.items():
        found.update(_leaves((*path, key), value) if isinstance(value, dict) else {(*path, key): value})
    return found


_VERBS = {"check": (_check, {}, (0, 0)), "show": (_show, rows({"--origin": "origin?"}), (0, 0))}
NOUNS: dict[str, Noun] = {"config": ("", _VERBS)}
