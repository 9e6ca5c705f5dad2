"""`nvcore vgpu …`: the command line of this plugin. Everything is asked of the daemon, the only writer of state."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from nvcore.api.errors import UsageError

if TYPE_CHECKING:
    from nvcore.api.command import CommandIO

__all__ = ["command"]

_COLUMNS = (
    ("name", "NAME", "left"),
    ("gpu", "GPU", "left"),
    ("function", "VF", "right"),
    ("type", "TYPE", "left"),
    ("slot", "SLOT", "right"),
    ("vm", "VM", "left"),
    ("state", "STATE", "left"),
    ("reason", "REASON", "left"),
    ("uuid", "UUID", "wide"),
    ("machine", "MACHINE", "wide"),
    ("firmware", "FIRMWARE", "wide"),
    ("bring_up", "BRING-UP", "wide"),
)
_TYPE_COLUMNS = (
    ("gpu", "GPU", "left"),
    ("type", "TYPE", "left"),
    ("left", "LEFT", "right"),
    ("reason", "REASON", "left"),
    ("bring_up", "BRING-UP", "left"),
)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> Any:
        raise UsageError(f"nvcore vgpu: {message}", remedy="see `nvcore vgpu --help`")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="nvcore vgpu", description="vGPUs: create, list, start, stop, destroy. Needs a running daemon.")
    verbs = parser.add_subparsers(dest="verb", required=True, parser_class=_Parser)
    create = verbs.add_parser("create", help="declare a vGPU and bring it up")
    create.add_argument("--type", required=True, help="for example A100-4C; see `nvcore vgpu types`")
    create.add_argument("--gpu", help="bus address; without it the first GPU with room")
    create.add_argument("--name", help="for commands and logs; made up when left out")
    create.add_argument("--vm", help="name of the virtual machine it is for")
    create.add_argument("--no-start", action="store_true", help="only declare it")
    start = verbs.add_parser("start", help="bring up a declared vGPU")
    start.add_argument("name")
    start.add_argument("--pid", type=int, help="the process that will hold it")
    for verb, text in (("stop", "take it down; it stays declared"), ("destroy", "take it down and forget it")):
        sub = verbs.add_parser(verb, help=text)
        sub.add_argument("name")
        sub.add_argument("--force", action="store_true", help="also when a living process holds it")
    verbs.add_parser("list", help="declared vGPUs")
    verbs.add_parser("types", help="types, with the room for each")
    for sub in verbs.choices.values():
        sub.add_argument("-o", "--output", default="table", help="table, wide, json, jsonl or name")
        sub.add_argument("--json", dest="output", action="store_const", const="json", help="as -o json")
    return parser


def command(argv: Sequence[str], io: CommandIO) -> int:
    """vGPUs: create, list, start, stop, destroy."""
    arguments = _parser().parse_args(list(argv))
    if arguments.verb == "types":
        rows = io.call("io.nvcore.Vgpu.Types")["types"]
        io.show(arguments.output, schema="nvcore.vgpu-types/1", key="types", rows=rows, columns=_TYPE_COLUMNS, name="type")
        return 0
    if arguments.verb == "list":
        rows = io.call("io.nvcore.Vgpu.List")["vgpus"]
    else:
        rows = [io.call(f"io.nvcore.Vgpu.{arguments.verb.capitalize()}", _parameters(arguments))["vgpu"]]
    io.show(arguments.output, schema="nvcore.vgpu/1", key="vgpus", rows=rows, columns=_COLUMNS)
    return 0


def _parameters(arguments: argparse.Namespace) -> dict[str, Any]:
    if arguments.verb == "create":
        return {
            "type": arguments.type,
            "gpu": arguments.gpu,
            "name": arguments.name,
            "vm": arguments.vm,
            "start": not arguments.no_start,
        }
    if arguments.verb == "start":
        return {"name": arguments.name, "pid": arguments.pid}
    return {"name": arguments.name, "force": arguments.force}
