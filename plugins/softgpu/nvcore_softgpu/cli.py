"""`nvcore softgpu`: the software GPU's own commands.

Owns the words of the noun and what each prints; a verb's work is done by the module that it names, imported on use. Runs in the command
line's process, on its main thread.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from nvcore.api.command import CommandIO
from nvcore.api.errors import UsageError

__all__ = ["command"]

_OUTPUT_HELP: Final = "OUTPUT: table, wide, json, jsonl or name"
_HELP: Final = {
    "conventions": ("[-o OUTPUT]", "list what the model shows and no source attests", _OUTPUT_HELP),
    "firmware": (
        "DIR [--chip CHIP] [--version VERSION] [--full-size]",
        "write synthetic firmware images below DIR",
        "--chip, --version: only these, as in ga100 and 570.144; --full-size: as large as the vendor's",
    ),
    "faults": ("[-o OUTPUT]", "list the faults that can be injected by name", _OUTPUT_HELP),
    "serve": (
        "--chip CHIP --vram SIZE --socket PATH [--firmware DIR] [--fault NAME[:ARG]]... [--once] [--report FILE]",
        "serve a software GPU to QEMU; prints the QEMU line that fits",
        "--once: end when the first client has left; --report: write what the model saw as JSON",
    ),
    "violations": ("[-o OUTPUT]", "list what the model notices of a driver that does something wrong", _OUTPUT_HELP),
}
"""By verb: its words, what it does, and what its options mean."""
_FAULT_COLUMNS: Final = (
    ("name", "FAULT", "left"),
    ("place", "PLACE", "left"),
    ("argument", "ARGUMENT", "left"),
    ("acts", "ACTS", "left"),
    ("meaning", "MEANING", "left"),
)
_CONVENTION_COLUMNS: Final = (("what", "WHAT", "left"), ("value", "VALUE", "left"), ("why", "WHY", "left"))
_VIOLATION_COLUMNS: Final = (("name", "VIOLATION", "left"), ("place", "PLACE", "left"), ("meaning", "MEANING", "left"))


def _options(words: Sequence[str], values: Sequence[str], flags: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """Split words into options (NAME VALUE or NAME=VALUE), flags (value "yes") and the rest. Raises UsageError."""
    options: dict[str, str] = {}
    rest: list[str] = []
    left = list(words)
    while left:
        word = left.pop(0)
        name, equals, value = word.partition("=")
        if name in values:
            if not equals and not left:
                raise UsageError(f"{name} needs a value", remedy="nvcore softgpu --help")
            options[name] = value if equals else left.pop(0)
        elif word in flags:
            options[word] = "yes"
        elif word.startswith("-"):
            raise UsageError(f"unknown option {word!r}", expected=", ".join([*values, *flags]), remedy="nvcore softgpu --help")
        else:
            rest.append(word)
    return options, rest


def _firmware(words: Sequence[str], io: CommandIO) -> int:
    from pathlib import Path

    from nvcore_softgpu.images import synthetic

    options, rest = _options(words, ("--chip", "--version"), ("--full-size",))
    if len(rest) != 1:
        raise UsageError("firmware takes one folder", seen=" ".join(rest) or "none", remedy="nvcore softgpu firmware DIR")
    chip = options.get("--chip", "").lower() or None
    version = options.get("--version")
    chips, versions = {row.chip for row in synthetic.SETS}, {row.version for row in synthetic.SETS}
    if not any(chip in (None, row.chip) and version in (None, row.version) for row in synthetic.SETS):
        known = ", ".join(f"{row.chip} {row.version}" for row in synthetic.SETS)
        raise UsageError(
            "no images of that kind can be made",
            expected=known,
            seen=f"{chip or '/'.join(sorted(chips))} {version or '/'.join(sorted(versions))}",
        )
    try:
        written = synthetic.write_images(Path(rest[0]), chip=chip, version=version, full_size="--full-size" in options)
    except FileExistsError as problem:
        raise UsageError(
            "the folder holds firmware that was not written here", seen=str(problem), remedy="name an empty folder"
        ) from problem
    except OSError as problem:
        raise UsageError(
            f"no images can be written below {rest[0]}", seen=problem.strerror, where=problem.filename, remedy="name another folder"
        ) from problem
    files = list(dict.fromkeys(written))  # versions of a chip share some
    for path in files:
        io.out(f"{path}\n")
    io.say(f"{len(files)} synthetic files: seeded bytes, no vendor's firmware; they run on the software GPU only")
    return 0


def _output(verb: str, words: Sequence[str]) -> str:
    """The output that a listing was asked for."""
    options, rest = _options(words, ("-o", "--output"), ())
    if rest:
        raise UsageError(f"{verb} takes no argument", seen=" ".join(rest))
    return options.get("-o", options.get("--output", "table"))


def _faults(words: Sequence[str], io: CommandIO) -> int:
    from nvcore_softgpu.faults import FAULTS

    output = _output("faults", words)
    rows = []
    for row in FAULTS:
        acts = "once" if row.once else "until disarmed"
        rows.append({"name": row.name, "place": row.place, "argument": row.argument, "acts": acts, "meaning": row.meaning})
    io.show(output, schema="nvcore.softgpu-faults/1", key="faults", rows=rows, columns=_FAULT_COLUMNS)
    return 0


def _conventions(words: Sequence[str], io: CommandIO) -> int:
    from nvcore_softgpu.conventions import CONVENTIONS

    output = _output("conventions", words)
    rows = [convention._asdict() for convention in CONVENTIONS]
    io.show(output, schema="nvcore.softgpu-conventions/1", key="conventions", rows=rows, columns=_CONVENTION_COLUMNS)
    return 0


def _violations(words: Sequence[str], io: CommandIO) -> int:
    from nvcore_softgpu.violations import VIOLATIONS

    output = _output("violations", words)
    rows = [rule._asdict() for rule in VIOLATIONS]
    io.show(output, schema="nvcore.softgpu-violations/1", key="violations", rows=rows, columns=_VIOLATION_COLUMNS)
    return 0


def _serve(words: Sequence[str], io: CommandIO) -> int:
    from nvcore_softgpu.serve import serve

    faults: list[str] = []
    left: list[str] = []
    queue = list(words)
    while queue:  # the one option that may be given again
        word = queue.pop(0)
        if word == "--fault" and queue:
            faults.append(queue.pop(0))
        elif word.startswith("--fault="):
            faults.append(word.partition("=")[2])
        else:
            left.append(word)
    options, rest = _options(left, ("--chip", "--vram", "--socket", "--firmware", "--report"), ("--once",))
    if rest:
        raise UsageError("serve takes options only", seen=" ".join(rest), remedy="nvcore softgpu --help")
    return serve(options, faults, io)


VERBS: Final[dict[str, Callable[[Sequence[str], CommandIO], int]]] = {
    "conventions": _conventions, "firmware": _firmware, "faults": _faults, "serve": _serve, "violations": _violations,
}  # fmt: skip


def _usage() -> str:
    lines = [f"  {verb} {words}\n      {does}\n" for verb, (words, does, _) in _HELP.items()]
    return "".join(["usage: nvcore softgpu VERB\n\n", *lines, "\nnvcore softgpu VERB --help says what the options of one mean\n"])


def command(argv: Sequence[str], io: CommandIO) -> int:
    """The noun `softgpu`."""
    if not argv or argv[0] in ("-h", "--help"):
        io.out(_usage())
        return 0 if argv else 2
    verb = VERBS.get(argv[0])
    if verb is None:
        raise UsageError(f"no command {argv[0]!r}", expected=", ".join(VERBS), remedy="nvcore softgpu --help")
    if any(word in ("-h", "--help") for word in argv[1:]):
        words, does, options = _HELP[argv[0]]
        io.out(f"usage: nvcore softgpu {argv[0]} {words}\n\n{does}\n{options}\n")
        return 0
    return verb(argv[1:], io)
