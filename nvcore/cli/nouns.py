"""Nouns and verbs: from the words of a command line to the function that serves them, and `--help`. Main thread.

A noun of the core is one word of NOUNS; its module, imported only when it is used, holds by noun in a table `NOUNS` the verb where none is
named, and the table of verbs. A verb is (function of the context, options, how many words it takes); a noun without verbs has one named "".
What `--help` prints of a noun is the file `help/NOUN.txt`. A noun of a plugin never stands here: it is an entry point of group
`nvcore.command.v1`.
"""

from __future__ import annotations

from nvcore.cli.args import parse, usage
from nvcore.cli.output import OUTPUT_OPTIONS, beside, chosen
from nvcore.plugins.names import did_you_mean

TYPE_CHECKING = False
if TYPE_CHECKING:
    from nvcore.cli.context import Context
    from nvcore.plugins.states import Plugin

__all__ = ["NOUNS", "dispatch", "help_text", "rows", "unknown_noun"]

NOUNS = {
    "run": "nvcore.daemon.run",
    "status": "nvcore.cli.status",
    **dict.fromkeys(("gpus", "events", "doctor", "dump", "stop", "devices"), "nvcore.cli.live"),
    "plugins": "nvcore.cli.plugins",
    "config": "nvcore.cli.config",
    "explain": "nvcore.cli.explain",
}
"""Nouns of the core, and their modules."""


def dispatch(name: str, context: Context) -> int:
    """Run the verb of a noun that the words name; the exit code. The context has then what was given to the verb."""
    argv = context.given.words
    if "--help" in argv or "-h" in argv:
        context.out(beside(f"help/{name}.txt"))
        return 0
    default, verbs = __import__(NOUNS[name], fromlist=["NOUNS"]).NOUNS[name]
    named = "" not in verbs and bool(argv) and argv[0][:1] != "-"
    verb, rest = (argv[0], argv[1:]) if named else (default, argv)
    if verb not in verbs:
        raise usage(f"no verb {verb!r} of {name}", ", ".join(verbs), f"nvcore {name} --help")
    run, options, words = verbs[verb]
    parse(rest, options, words=words, into=context.given)
    context.output = chosen(context.given.values)
    code: int = run(context)
    return code


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


def unknown_noun(noun: str, plugins: list[Plugin]) -> Exception:
    """The error for a noun that nobody offers, with the closest one that somebody does."""
    known = [*NOUNS, *(name for plugin in plugins for name in plugin.commands)]
    remedy = did_you_mean(noun, known, "if a plugin offers it, install that plugin; nvcore --help lists what is here")
    return usage(f"no noun {noun!r}", "one of " + ", ".join(sorted(set(known))), remedy)
