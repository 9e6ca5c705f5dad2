"""Nouns and verbs: from the words of a command line to the function that serves them, and `--help`. Main thread.

Nouns of the core, their verbs, functions and options are the file `verbs.txt`; a module is imported only when a noun of it is used. A noun
of a plugin never stands there: it is an entry point of group `nvcore.command.v1`.
"""

from __future__ import annotations

import sys

from nvcore.api.errors import ConflictError, NvcoreError, PluginError, UsageError
from nvcore.cli.context import Context
from nvcore.cli.output import OUTPUT_OPTIONS, beside, chosen
from nvcore.plugins.names import did_you_mean
from nvcore.plugins.states import Plugin

# Nouns of the core: verb to function, word and options, as `verbs.txt` has them.
NOUNS: dict[str, dict[str, list[str]]] = {}

for _line in beside("verbs.txt").splitlines():
    if _line and _line[0] != "#":
        _noun, _verb, *_rest = _line.split()
        NOUNS.setdefault(_noun, {})[_verb] = _rest


def run_core(noun: str, context: Context) -> int:
    """Run the command line behind a noun of the core; the exit code. The context has then what was given to it."""
    argv = context.given.words
    if "--help" in argv or "-h" in argv:
        context.out(beside(f"help/{noun}.txt"))
        return 0
    verbs = NOUNS[noun]
    named = len(verbs) > 1 and bool(argv) and argv[0][:1] != "-"
    verb = argv[0] if named else "-"
    if verb not in verbs:
        what = f"no verb {verb!r} of {noun}" if named else f"nvcore {noun} needs a verb"
        raise UsageError(what, expected=", ".join(verbs).removeprefix("-, "), remedy=f"nvcore {noun} --help")
    place, word, *said = verbs[verb]
    options = dict(pair.split(":") for pair in said if pair != "rows") | (OUTPUT_OPTIONS if "rows" in said else {})
    words = context.given.parse(argv[named:], options).words
    least, most = int(word[0] not in "-["), int(word != "-")
    if not least <= len(words) <= most:
        usage = " ".join(part for part in ("nvcore", noun, verb, word) if part != "-")
        what = "too many words" if words else f"{word} is missing"
        raise UsageError(what, expected=usage, seen=" ".join(words), remedy=f"nvcore {noun} --help")
    context.verb, context.output = verb, chosen(context.given.text("output", "json" if context.given.flag("json") else "table"))
    module, _, function = place.partition(":")
    return int(getattr(__import__(f"nvcore.{module}", fromlist=[function]), function)(context))


def run_plugin(noun: str, context: Context) -> int:
    """Run the command line behind a noun of a plugin; the exit code. Raises where no plugin, or more than one, may serve it."""
    from nvcore.plugins.loader import import_object, raised

    plugins = context.plugins()
    owners = [plugin for plugin in plugins if noun in plugin.commands]
    if not owners:
        known = sorted({*NOUNS, *(name for plugin in plugins for name in plugin.commands)})
        remedy = did_you_mean(noun, known, "if a plugin offers it, install that plugin; nvcore --help lists what is here")
        raise UsageError(f"no noun {noun!r}", expected="one of " + ", ".join(known), remedy=remedy)
    usable = [plugin for plugin in owners if plugin.state == "selected"]
    names = list(dict.fromkeys(plugin.distribution for plugin in usable))
    if len(names) > 1:
        raise ConflictError(f"command {noun!r} is offered by {' and '.join(names)}", remedy=f"pip uninstall one, or -p no:{names[0]}")
    owner = (usable or owners)[0]
    if not usable:
        raise PluginError(f"command {noun!r} is of plugin {owner.name}, which is {owner.state}: {owner.reason}", remedy=owner.remedy)
    command = import_object(owner, owner.commands[noun])
    if not callable(command):
        raise PluginError(f"command {noun} of {owner.distribution} cannot be called", expected="a callable", seen=type(command).__name__)
    try:
        return int(command(context.given.words, context))
    except Exception as error:  # isolation boundary: hook
        if isinstance(error, NvcoreError | OSError) or sys.flags.dev_mode:
            raise
        raise PluginError(f"command {noun} of plugin {owner.name} {raised(error)}", remedy=owner.complaint) from error


def help_text(plugins: list[Plugin]) -> str:
    """The text of `nvcore --help`: the core's page, and the nouns of plugins by the index; nothing is imported to write it."""
    theirs: dict[str, str] = {}
    for plugin in plugins:
        state = "" if plugin.state == "selected" else f" ({plugin.state})"
        theirs = {**dict.fromkeys(plugin.commands, f"{plugin.distribution} {plugin.version}{state}"), **theirs}
    size = max(map(len, theirs), default=0)
    lines = ["\nnouns of plugins", *(f"  {noun.ljust(size)}  {of}" for noun, of in sorted(theirs.items()))] if theirs else []
    return beside("help/nvcore.txt").replace("\noptions\n", "\n".join([*lines, "\noptions\n"]))
