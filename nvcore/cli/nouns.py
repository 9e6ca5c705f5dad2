"""Nouns and verbs: from the words of a command line to the function that serves them, and `--help`. Main thread.

A noun of the core is one word of NOUNS; its module, imported only when it is used, holds by noun in a table `NOUNS` the verb where none is
named, and the table of verbs. A verb is (function of the context, options, how many words it takes); a noun without verbs has one named "".
What `--help` prints of a noun is the file `help/NOUN.txt`. A noun of a plugin never stands here: it is an entry point of group
`nvcore.command.v1`.
"""

from __future__ import annotations

from nvcore.api.errors import ConflictError, PluginError, UsageError
from nvcore.cli.args import parse
from nvcore.cli.context import Context
from nvcore.cli.output import OUTPUT_OPTIONS, beside, chosen
from nvcore.plugins.names import did_you_mean
from nvcore.plugins.states import Plugin

__all__ = ["NOUNS", "dispatch", "help_text", "rows"]

NOUNS = {
    "run": "nvcore.daemon.run",
    "status": "nvcore.cli.status",
    **dict.fromkeys(("gpus", "events", "doctor", "dump", "stop", "devices"), "nvcore.cli.live"),
    "plugins": "nvcore.cli.plugins",
    "config": "nvcore.cli.config",
    "explain": "nvcore.cli.explain",
}
"""Nouns of the core, and their modules."""


def dispatch(noun: str, context: Context) -> int:
    """Run the command line behind a noun; the exit code. The context has then what was given to it."""
    return _core(noun, context) if noun in NOUNS else _plugin(noun, context)


def _core(noun: str, context: Context) -> int:
    argv = context.given.words
    if "--help" in argv or "-h" in argv:
        context.out(beside(f"help/{noun}.txt"))
        return 0
    default, verbs = __import__(NOUNS[noun], fromlist=["NOUNS"]).NOUNS[noun]
    named = "" not in verbs and bool(argv) and argv[0][:1] != "-"
    verb, rest = (argv[0], argv[1:]) if named else (default, argv)
    if verb not in verbs:
        raise UsageError(f"no verb {verb!r} of {noun}", expected=", ".join(verbs), remedy=f"nvcore {noun} --help")
    run, options, words = verbs[verb]
    parse(rest, options, words=words, into=context.given)
    context.output = chosen(context.given.values)
    code: int = run(context)
    return code


def _plugin(noun: str, context: Context) -> int:
    from nvcore.plugins.loader import import_object

    plugins = context.plugins()
    owners = [plugin for plugin in plugins if noun in plugin.commands]
    if not owners:
        known = sorted({*NOUNS, *(name for plugin in plugins for name in plugin.commands)})
        remedy = did_you_mean(noun, known, "if a plugin offers it, install that plugin; nvcore --help lists what is here")
        raise UsageError(f"no noun {noun!r}", expected="one of " + ", ".join(known), remedy=remedy)
    owner = _usable(noun, owners)
    command = import_object(owner, owner.commands[noun])
    if not callable(command):
        raise PluginError(f"command {noun} of {owner.distribution} cannot be called", expected="a callable", seen=type(command).__name__)
    return int(command(context.given.words, context))


def _usable(noun: str, owners: list[Plugin]) -> Plugin:
    """The plugin whose command is run. Raises where none, or more than one, may be."""
    usable = [plugin for plugin in owners if plugin.state == "selected"]
    names = [plugin.distribution for plugin in usable]
    if len(set(names)) > 1:
        raise ConflictError(f"command {noun!r} is offered by {' and '.join(names)}", remedy=f"pip uninstall one, or -p no:{names[0]}")
    if not usable:
        plugin = owners[0]
        raise PluginError(f"command {noun!r} is of plugin {plugin.name}, which is {plugin.state}: {plugin.reason}", remedy=plugin.remedy)
    return usable[0]


def rows(options: dict[str, str] | None = None) -> dict[str, str]:
    """The options of a verb that shows rows: its own, and the output's."""
    return {**OUTPUT_OPTIONS, **(options or {})}


def help_text(plugins: list[Plugin]) -> str:
    """The text of `nvcore --help`: the core's page, and the nouns of plugins by the index; nothing is imported to write it."""
    theirs: dict[str, str] = {}
    for plugin in plugins:
        state = "" if plugin.state == "selected" else f" ({plugin.state})"
        for noun in plugin.commands:
            theirs.setdefault(noun, f"{plugin.distribution} {plugin.version}{state}")
    if not theirs:
        return beside("help/nvcore.txt")
    size = max(map(len, theirs))
    lines = [f"  {noun.ljust(size)}  {of}" for noun, of in sorted(theirs.items())]
    return beside("help/nvcore.txt").replace("\noptions\n", "\n".join(["\nnouns of plugins", *lines, "\noptions\n"]))
