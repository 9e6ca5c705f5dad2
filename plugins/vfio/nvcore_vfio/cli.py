"""`nvcore vgpu …`: the command line of this plugin. Everything is asked of the daemon, the only writer of state."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from nvcore.api.errors import NvcoreError, UsageError, WaitTimeout
from nvcore_vfio.errors import NoVgpuHost
from nvcore_vfio.types import no_types

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
_TYPES_TELL = "`nvcore vgpu types` lists the GPUs with room, and why others host none"
_NOT_AT_WORK = ("failed", "down")
_GOES_ON = "the operation was not called off and goes on: `nvcore vgpu list` shows how it ended"
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
    create.add_argument("--gpu", help="bus address or UUID; without it the first GPU with room")
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
    verbs.add_parser("list", help="declared vGPUs; what is done without a verb")
    verbs.add_parser("types", help="types, with the room for each; GPUs that host none, with the reason")
    for sub in verbs.choices.values():
        sub.add_argument("-o", "--output", default="table", help="table, wide, json, jsonl or name")
        sub.add_argument("--json", dest="output", action="store_const", const="json", help="as -o json")
    return parser


def command(argv: Sequence[str], io: CommandIO) -> int:
    """vGPUs: create, list, start, stop, destroy. 7: one that is listed failed, or its GPU hosts none now."""
    words = list(argv)
    if not words or (words[0].startswith("-") and words[0] not in ("-h", "--help")):
        words.insert(0, "list")
    arguments = _parser().parse_args(words)
    if arguments.verb == "types":
        rows = io.call("io.nvcore.Vgpu.Types")["types"]
        io.show(arguments.output, schema="nvcore.vgpu-types/1", key="types", rows=rows, columns=_TYPE_COLUMNS, name="type")
        _say_why_not(io, {row["gpu"] for row in rows})
        return 0
    rows = io.call("io.nvcore.Vgpu.List")["vgpus"] if arguments.verb == "list" else [_change(io, arguments)]
    io.show(arguments.output, schema="nvcore.vgpu/1", key="vgpus", rows=rows, columns=_COLUMNS)
    return 7 if arguments.verb == "list" and any(row["state"] in _NOT_AT_WORK for row in rows) else 0


def _change(io: CommandIO, arguments: argparse.Namespace) -> dict[str, Any]:
    try:
        row: dict[str, Any] = io.call(f"io.nvcore.Vgpu.{arguments.verb.capitalize()}", _parameters(arguments))["vgpu"]
    except WaitTimeout as error:
        raise WaitTimeout(error.what, expected=error.expected, seen=error.seen, where=error.where, remedy=_GOES_ON) from error
    except NvcoreError as error:
        if error.code != NoVgpuHost.code or not getattr(arguments, "gpu", None):
            raise
        gpu = io.call("io.nvcore.Gpu.Describe", {"gpu": arguments.gpu})["gpu"]  # raises when there is none of that name
        why = _why_not(gpu)
        raise NoVgpuHost(f"GPU {arguments.gpu} hosts no vGPUs", expected=error.expected, seen=why, remedy=_TYPES_TELL) from error
    return row


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


def _why_not(gpu: dict[str, Any]) -> str:
    """Why a GPU, as io.nvcore.Gpu.Describe tells of it, hosts no vGPUs."""
    if gpu["state"] != "running":
        return f"it is {gpu['state']}" + (f": {gpu['cause']}" if gpu["cause"] else "")
    function = next((row for row in gpu["functions"] if row["kind"] == "vgpu"), None)
    if function is None:
        return "it has no function of that kind"
    owner, inventory = function["owner"], gpu["inventory"]
    if owner is None or inventory is None:
        return function["reason"] or "no client drives its vGPU function; nvcore doctor and nvcore plugins say more"
    if owner != "vfio":
        return f"the client {owner} drives its vGPU function"
    return no_types(gpu["chip"], inventory["memory_size"]) or "vfio comes to its vGPU function, or leaves it, just now: ask again"


def _say_why_not(io: CommandIO, hosts: set[str]) -> None:
    """One line for each GPU that hosts no vGPUs."""
    for row in io.call("io.nvcore.Gpu.List")["gpus"]:
        if row["address"] not in hosts:
            gpu = io.call("io.nvcore.Gpu.Describe", {"gpu": row["address"] or row["source"]})["gpu"]
            io.say(f"{row['address'] or row['source']} ({row['chip'] or 'chip unknown'}) hosts no vGPUs: {_why_not(gpu)}")
