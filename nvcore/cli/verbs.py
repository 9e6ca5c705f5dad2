"""Verbs: from the words behind a noun to the function that serves them. Main thread. Knows no noun.

A noun is (what `--help` prints, the verb where none is named, table of verbs); a verb is (function, options, how many words it takes). A
noun without verbs has one named "". The modules of nouns hold such tables, by noun, as `NOUNS`.
"""

from __future__ import annotations

from nvcore.cli.args import parse, usage
from nvcore.cli.output import OUTPUT_OPTIONS, chosen

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from nvcore.cli.args import Arguments
    from nvcore.cli.context import Context

    Verb = tuple[Callable[[Arguments, str, Context], int], Mapping[str, str], tuple[int, int]]
    Noun = tuple[str, str, Mapping[str, Verb]]

__all__ = ["dispatch", "rows"]


def dispatch(name: str, noun: Noun, argv: Sequence[str], context: Context) -> int:
    """Run the verb that `argv` names; the exit code.

    A verb's function gets the parsed arguments, the output format ("table" where the verb has no `-o`) and the context.
    """
    text, default, verbs = noun
    if "--help" in argv or "-h" in argv:
        context.out(text)
        return 0
    named = "" not in verbs and bool(argv) and argv[0][:1] != "-"
    verb, rest = (argv[0], argv[1:]) if named else (default, argv)
    if verb not in verbs:
        raise usage(f"no verb {verb!r} of {name}", ", ".join(verbs), f"nvcore {name} --help")
    run, options, words = verbs[verb]
    given = parse(rest, options, words=words)
    return run(given, chosen(given.values), context)


def rows(options: Mapping[str, str] | None = None) -> Mapping[str, str]:
    """The options of a verb that shows rows: its own, and the output's."""
    return {**OUTPUT_OPTIONS, **(options or {})}
