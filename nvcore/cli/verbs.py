"""Verbs: from the words behind a noun to the function that serves them. Main thread. Knows no noun.

A noun is a table of verbs, each with its function, its options and how many words it takes; a noun without verbs has one named "".
"""

from __future__ import annotations

from nvcore.cli.args import parse, usage
from nvcore.cli.output import OUTPUT_OPTIONS, chosen

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from nvcore.cli.args import Arguments
    from nvcore.cli.context import Context

    Verbs = Mapping[str, tuple[Callable[[Arguments, str, Context], int], Mapping[str, str], tuple[int, int]]]

__all__ = ["dispatch", "rows"]


def dispatch(noun: str, argv: Sequence[str], context: Context, verbs: Verbs, text: str, *, default: str = "") -> int:
    """Run the verb that `argv` names, `default` where it names none; the exit code. text: what `--help` prints.

    A verb's function gets the parsed arguments, the output format ("table" where the verb has no `-o`) and the context.
    """
    if "--help" in argv or "-h" in argv:
        context.out(text)
        return 0
    named = "" not in verbs and bool(argv) and argv[0][:1] != "-"
    verb, rest = (argv[0], argv[1:]) if named else (default, argv)
    if verb not in verbs:
        raise usage(f"no verb {verb!r} of {noun}", ", ".join(verbs), f"nvcore {noun} --help")
    run, options, words = verbs[verb]
    given = parse(rest, options, words=words)
    return run(given, chosen(given.values), context)


def rows(options: Mapping[str, str] | None = None) -> Mapping[str, str]:
    """The options of a verb that shows rows: its own, and the output's."""
    return {**OUTPUT_OPTIONS, **(options or {})}
