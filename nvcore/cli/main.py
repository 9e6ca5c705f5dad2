"""The entry of `nvcore`: global options, the noun, its command, and how errors, closed pipes and interrupts end.

Owns the exit code. Main thread. Parses plugin selection before any import; imports a command only when its noun is used, a plugin only when
the noun is the plugin's. Help lists nouns from the index without importing any. `nvcore run` becomes `python -I -m nvcore run` as soon as
the noun is known, before plugins are looked for: a `*.dist-info` in the current folder or on PYTHONPATH must not become code in a daemon.
"""

from __future__ import annotations

import errno
import os
import sys

from nvcore import __version__
from nvcore.api.errors import NvcoreError


def main(argv: list[str] | None = None) -> int:
    """Run one command line; returns its exit code (`nvcore --help` lists them). argv: None for that of the process, which ends here when
    a plugin hangs in it: its thread may hold a stream, and the interpreter, which wants that at its end, would abort."""
    code, locks = _run(argv), sys.modules.get("nvcore.locks")
    if argv is None and locks and any(thread.name.startswith("nvcore-watched") for thread in locks.live_threads()):
        os._exit(code)  # what was written is flushed by now
    return code


def _run(argv: list[str] | None) -> int:
    if sys.stdout is None or sys.stderr is None:
        nowhere = open(os.devnull, "w")  # noqa: SIM115  # started with a closed stream: nothing to write to is no reason to fail
        sys.stdout, sys.stderr = sys.stdout or nowhere, sys.stderr or nowhere
    try:
        code = _dispatch(sys.argv[1:] if argv is None else argv, isolate=argv is None and not sys.flags.isolated)
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        _close_quietly()
        return 141  # what a shell reports for a program ended by SIGPIPE
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO):
            return _report(NvcoreError("the operating system refused an access", seen=str(error), remedy="see what it names"))
        _close_quietly()
        return _report(NvcoreError("the output cannot be written", seen=error.strerror, remedy="make room where it goes to"))
    except KeyboardInterrupt:
        return 130  # and by SIGINT
    except NvcoreError as error:
        return _report(error)


def _close_quietly() -> None:
    """Point the stream at nothing, so that the interpreter's last flush has no second error to show."""
    from contextlib import suppress

    with suppress(OSError, ValueError):  # a stream without a descriptor: nothing will be flushed to a pipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _report(error: NvcoreError) -> int:
    """Print an error as a colleague would say it: what failed, what was seen, what to do."""
    from nvcore.cli.output import ascii_only, safe

    said = {"at": error.where, "expected": error.expected, "seen": error.seen, "do": error.remedy}
    lines = [f"error: {error.what} ({error.code})", *(f"  {word}: {value}" for word, value in said.items() if value)]
    try:
        sys.stdout.flush()
        sys.stderr.write("".join(safe(line, ascii_only(sys.stderr)) + "\n" for line in lines))
    except OSError:
        _close_quietly()
    return error.exit_code or 1


def _dispatch(argv: list[str], *, isolate: bool) -> int:
    from nvcore.cli.args import GLOBAL_OPTIONS, SELECTION_OPTIONS, Arguments

    ours = {**GLOBAL_OPTIONS, **SELECTION_OPTIONS}
    given = Arguments().parse(argv, {**ours, "--version": "version?", "-V": "version?", "--help": "help?", "-h": "help?"}, front=True)
    if given.flag("version"):
        sys.stdout.write(f"nvcore {__version__}\n")
        return 0
    noun = given.words[0] if given.words else "help"
    if noun == "run" and isolate:
        os.execv(sys.executable, [sys.executable, "-I", "-m", "nvcore", *argv])
    from nvcore.cli.context import Context
    from nvcore.cli.nouns import NOUNS, help_text, run_core, run_plugin

    asked = bool(given.words) or given.flag("help")
    if noun not in NOUNS:
        ours = {name: key for name, key in GLOBAL_OPTIONS.items() if name != "--socket"}  # behind its noun that is the plugin's word
    context = Context(given.parse(given.words[1:], ours, others=True))
    if given.flag("help") or noun == "help":
        context.out(help_text(context.plugins()))
        return 0 if asked else 2
    return run_core(noun, context) if noun in NOUNS else run_plugin(noun, context)
