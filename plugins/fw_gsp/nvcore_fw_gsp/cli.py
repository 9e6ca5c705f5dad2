"""`nvcore firmware list|inspect FILE|verify|fetch`: which images there are, what is in one, whether they are whole, and where to get them.

Owns the noun `firmware` and its JSON documents (schemas nvcore.firmware.*/1). Main thread of a command line; asks no daemon, touches no
device.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from nvcore.api.errors import NvcoreError, UsageError

if TYPE_CHECKING:
    from nvcore.api.command import CommandIO

__all__ = ["command"]


class _Parser(argparse.ArgumentParser):
    """argparse whose complaints are errors of ours."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"nvcore firmware: {message}", remedy="nvcore firmware --help")


def command(argv: Sequence[str], io: CommandIO) -> int:
    """Run `nvcore firmware …`, `list` where no verb is named; the exit code. 1: something is damaged or was not fetched; 3: no images."""
    if not argv or (argv[0].startswith("-") and argv[0] not in ("-h", "--help")):
        argv = ["list", *argv]
    parser = _Parser(prog="nvcore firmware", description="GSP-RM firmware images on this machine")
    verbs = parser.add_subparsers(dest="verb", required=True, parser_class=_Parser)
    for verb, text in (
        ("list", "image sets by chip, version and folder; what is done without a verb"),
        ("verify", "read every file, compare checksums and notes"),
    ):
        one = verbs.add_parser(verb, help=text)
        one.add_argument("--chip", action="append", default=[], help="only this chip, as in GA100 (again for more)")
        one.add_argument("--root", help="look here first (a folder with <chip>/gsp/…)")
        one.add_argument("-o", "--output", default="table", help="table, wide, json, jsonl or name")
    one = verbs.add_parser("inspect", help="what is in one firmware file or ROM dump")
    one.add_argument("file")
    one.add_argument("--offset", type=lambda text: int(text, 0), help="where a ROM dump's first image begins")
    one.add_argument("-o", "--output", default="table", help="table, json or jsonl")
    one = verbs.add_parser("fetch", help="get the images of Debian's package, without root and without installing it")
    one.add_argument("--to", help="folder for the images (default: the state folder)")
    one.add_argument("--force", action="store_true", help="fetch again although they are there")
    one.add_argument("-o", "--output", default="table", help="table or json")
    try:
        words = parser.parse_args(list(argv))
    except SystemExit as end:  # --help
        return int(end.code or 0)
    run = {"list": _list, "verify": _verify, "inspect": _inspect, "fetch": _fetch}[words.verb]
    return run(words, io)


def _roots(words: argparse.Namespace, io: CommandIO) -> Sequence[str]:
    """Folders that are looked in: the one asked for, then those of the daemon's configuration and the usual ones."""
    from nvcore_fw_gsp.images.find import search_roots

    return search_roots([*([words.root] if words.root else []), *_configured(io)])


def _configured(io: CommandIO) -> tuple[str, ...]:
    from nvcore_fw_gsp.operator import SECTION

    folders: tuple[str, ...] = io.section(SECTION).firmware_dir
    return folders


def _sets(words: argparse.Namespace, io: CommandIO) -> list[Any]:
    """Image sets of the chips asked for, or of all; folders that are not there or cannot be read are said."""
    from nvcore_fw_gsp.images.chips import CHIPS
    from nvcore_fw_gsp.images.find import absent, find, unreadable

    roots = _roots(words, io)
    for why in absent(_configured(io)):
        io.say(f"{why}: no GPU is booted until that is mended")
    if words.root and not os.path.isdir(words.root):
        io.say(f"{words.root}, named by --root, is no folder")
    chips = [chip.upper() for chip in words.chip] or [chip.name for chip in CHIPS]
    for why in sorted({why for chip in chips for why in unreadable(chip, roots)}):
        io.say(why)
    return [found for chip in chips for found in find(chip, roots)]


def _nothing(words: argparse.Namespace, io: CommandIO) -> int:
    io.say(f"no firmware images in {', '.join(_roots(words, io))}")
    io.say("nvcore firmware fetch gets them without root")
    return 3


def _list(words: argparse.Namespace, io: CommandIO) -> int:
    from nvcore_fw_gsp.images.find import taken

    sets = _sets(words, io)
    booted = [taken(one for one in sets if one.chip is chip) for chip in {one.chip.name: one.chip for one in sets}.values()]
    rows = [
        {
            "name": f"{one.chip.name}/{one.version}",
            "chip": one.chip.name,
            "version": one.version,
            "kind": one.kind,
            "state": "ok" if one.problem is None else one.problem,
            "usable": one.problem is None,
            "taken": any(one is found for found in booted),
            "folder": one.folder,
            "build_id": one.build_id or None,
            "files": dict(one.files),
            "looked_for": list(one.looked_for),
        }
        for one in sets
    ]
    columns = [
        ("chip", "CHIP", "left"),
        ("version", "VERSION", "left"),
        ("kind", "KIND", "left"),
        ("taken", "TAKEN", "left"),
        ("state", "STATE", "left"),
        ("folder", "FOLDER", "wide"),
    ]
    io.show(words.output, schema="nvcore.firmware.list/1", key="images", rows=rows, columns=columns)
    return 0 if rows else _nothing(words, io)


def _verify(words: argparse.Namespace, io: CommandIO) -> int:
    from nvcore_fw_gsp.images.verify import verify_sets

    rows = verify_sets(_sets(words, io))
    columns = [("file", "FILE", "left"), ("kind", "KIND", "left"), ("state", "STATE", "left"), ("checked", "CHECKED", "wide")]
    io.show(words.output, schema="nvcore.firmware.verify/1", key="files", rows=rows, columns=columns, name="file")
    if not rows:
        return _nothing(words, io)
    bad = sum(not row["ok"] for row in rows)
    io.say(f"{len(rows)} files, {bad} not as they should be")
    return 1 if bad else 0


def _inspect(words: argparse.Namespace, io: CommandIO) -> int:
    from nvcore_fw_gsp.images.inspect import inspect_file

    found = inspect_file(words.file, words.offset)
    rows = [{"name": key, "value": value} for key, value in found.items()]
    io.show(
        words.output,
        schema="nvcore.firmware.inspect/1",
        key="fields",
        rows=rows,
        columns=[("name", "FIELD", "left"), ("value", "VALUE", "left")],
    )
    return 0


def _fetch(words: argparse.Namespace, io: CommandIO) -> int:
    from nvcore_fw_gsp.provision.fetch import fetch, image_count
    from nvcore_fw_gsp.provision.place import default_folder

    folder = os.path.abspath(words.to) if words.to else default_folder()
    note = fetch(folder, io.say, force=words.force)
    rows = [{"name": folder, "package": note["package"], "version": note["version"], "sha256": note["sha256"], "files": image_count(note)}]
    columns = [("name", "FOLDER", "left"), ("package", "PACKAGE", "left"), ("version", "VERSION", "left"), ("sha256", "SHA256", "wide")]
    io.show(words.output, schema="nvcore.firmware.fetch/1", key="fetched", rows=rows, columns=columns)
    if words.to:
        try:
            from nvcore_fw_gsp.images.find import choose

            choose("GA100", [folder])
        except NvcoreError as error:
            io.say(str(error))
            return 1
        io.say(f"NVCORE_FIRMWARE={folder} makes the host look there first")
    return 0
