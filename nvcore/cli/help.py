"""Help: the nouns of the core and of the installed plugins, from the index; nothing is imported to write it. Pure; main thread."""

from __future__ import annotations

from nvcore.cli.args import usage
from nvcore.cli.nouns import NOUNS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from nvcore.plugins.states import Plugin

__all__ = ["help_text", "unknown_noun"]

_OPTIONS = """\
options
  --only NAME[,NAME]  load these plugins only       --no-plugins     load none
  -p no:NAME          leave this plugin out         --config FILE    one more configuration file
  --socket PATH       the daemon's control socket   --timeout SECONDS  how long to wait for it
  --version           the version                   --help           this text

exit codes
  0 ok  1 failed  2 usage  3 not found or not running  4 permission  5 daemon unreachable  6 state differs
  7 partial: some plugins or devices failed  78 bad configuration (run, config check)
"""


def help_text(plugins: list[Plugin]) -> str:
    """The text of `nvcore --help`."""
    lines = ["usage: nvcore [options] NOUN [VERB] [options] [words]", "", "nouns of the core"]
    size = max(map(len, NOUNS))
    lines += [f"  {noun.ljust(size)}  {summary}" for noun, (_, summary) in NOUNS.items()]
    theirs: dict[str, str] = {}
    for plugin in plugins:
        for noun in plugin.commands:
            state = "" if plugin.state == "selected" else f" ({plugin.state})"
            theirs.setdefault(noun, f"{plugin.distribution} {plugin.version}{state}")
    if theirs:
        size = max(map(len, theirs))
        lines += ["", "nouns of plugins", *(f"  {noun.ljust(size)}  {of}" for noun, of in sorted(theirs.items()))]
    return "\n".join([*lines, "", _OPTIONS])


def unknown_noun(noun: str, plugins: list[Plugin]) -> Exception:
    """The error for a noun that nobody offers, with the closest one that somebody does."""
    from nvcore.plugins.names import did_you_mean

    known = [*NOUNS, *(name for plugin in plugins for name in plugin.commands)]
    remedy = did_you_mean(noun, known, "if a plugin offers it, install that plugin; nvcore --help lists what is here")
    return usage(f"no noun {noun!r}", "one of " + ", ".join(sorted(set(known))), remedy)
