"""The nouns that the running daemon answers: gpus, events, doctor, dump, stop; and devices, which needs none. Main thread.

A noun is a table of verbs; a verb is a call to the control socket and what is shown of its answer.
"""

from __future__ import annotations

import os
import time
from typing import Any

from nvcore.api.errors import UnreachableError, UsageError, WaitTimeout
from nvcore.bus.pci import scan
from nvcore.cli.context import Context
from nvcore.cli.output import document

_LONG = 400.0  # seconds: a boot of real firmware in a model can take minutes


def gpus(context: Context) -> int:
    """`nvcore gpus list`, and `show`, `retry`, `reset` where one is named."""
    if context.given.words:
        method, timeout = ("Describe", None) if context.verb == "show" else (context.verb.capitalize(), _LONG)
        found = [context.call(f"io.nvcore.Gpu.{method}", {"gpu": context.given.words[0]}, timeout=timeout)["gpu"]]
    else:
        found = context.call("io.nvcore.Gpu.List")["gpus"]
    if context.verb == "show" and context.output not in ("jsonl", "name"):
        if context.output == "json":
            context.out(document("nvcore.gpu/1", {"gpu": found[0]}))
        for line in _details(found[0]) if context.tabular else ():
            context.line(line)
    else:
        named = [{**row, "address": row["address"] or row["source"]} for row in found]
        context.view("gpus", found if context.output[:4] == "json" else named)
    return 0 if all(row["state"] == "running" for row in found) else 7


def _details(gpu: dict[str, Any]) -> list[str]:
    """One GPU in words: state, boot report, books, functions."""
    lines = [f"{gpu['address'] or gpu['source']}  {gpu['chip'] or 'chip unknown'}  {gpu['state']}"]
    lines += [f"  {key}: {gpu[key]}" for key in ("cause", "code", "remedy", "uuid", "source", "firmware", "generation") if gpu.get(key)]
    if boot := gpu.get("boot"):
        image = boot["image"]
        which = f"image {image['version']} ({image['kind']}) of {image['location']}" if image["problem"] is None else "no usable image"
        lines.append(f"boot, {boot['seconds']:.3f} s, {which}")
        for stage in boot["stages"]:
            lines.append(f"  {stage['seconds']:8.3f} s  {stage['outcome']:7}  {stage['name']}  {stage['detail']}".rstrip())
            if stage["outcome"] == "failed":
                lines += [f"              {name} = {value}" for name, value in stage["registers"].items()]
        lines += [f"  log {name}: {text}" for name, text in boot["logs"].items()]
    book = "  {kind}: {total} {unit} = {free} free + {owned} owned + {quarantined} quarantined + {retired} retired"
    lines += ["books", *(book.format(**row) for row in gpu["ledger"])] if gpu["ledger"] else []
    lines += ["functions"] if gpu["functions"] else []
    for row in gpu["functions"]:
        lines.append(f"  {row['kind']}: " + (f"owner {row['owner'] or 'none'}" if row["published"] else f"not published: {row['reason']}"))
    return lines


def events(context: Context) -> int:
    """`nvcore events`: the ring, or with `--follow` what follows too."""
    given = context.given
    after = given.text("after") or "0"
    if not (after.isascii() and after.isdecimal()):
        raise UsageError(f"--after {after} is no sequence number", expected="a whole number")
    parameters = {"after": int(after), "gpu": given.text("gpu"), "kinds": given.many("kind") or None}
    if not given.flag("follow"):
        found = context.call("io.nvcore.Event.Watch", parameters)["events"]
        context.view("events", [{**row, "at": _clock(row["wall"])} for row in found] if context.tabular else found)
        return 0
    for answer in context.stream("io.nvcore.Event.Watch", parameters):
        for event in answer["events"] if context.tabular else ():
            context.line(event_line(event))
        if not context.tabular:
            context.view("events", answer["events"], "name" if context.output == "name" else "jsonl")
        context.stdout.flush()
    return 0


def _clock(wall: float) -> str:
    return time.strftime("%H:%M:%S", time.localtime(wall))


def event_line(event: dict[str, Any]) -> str:
    """One event in one line: who, what, whose, and what was done about it."""
    words = [_clock(event["wall"]), event.get("gpu") or "host", event["text"]]
    words += [f"{key}={event[key]}" for key in ("owner", "grant", "vm", "channel", "action") if event.get(key) is not None]
    words += [f"({event['code']})"] if event.get("code") else []
    return "  ".join(map(str, words))


def doctor(context: Context) -> int:
    """`nvcore doctor`."""
    try:
        found, code = context.call("io.nvcore.Host.Doctor", timeout=_LONG)["findings"], 0
    except UnreachableError as error:
        found, code = _outside(error), error.exit_code
    context.view("doctor", found)
    return 1 if any(finding["severity"] == "error" for finding in found) else code


def _outside(error: UnreachableError) -> list[dict[str, Any]]:
    """Checks that need no daemon."""
    from nvcore.plugins.index import scan as index

    found: list[tuple[str | None, ...]] = [("warning", "daemon", f"{error.what} at {error.where}", "NVC-8001", error.remedy)]
    found += [("warning", "plugins", f"{problem.where}: {problem.what}", problem.code, problem.remedy) for problem in index().problems]
    found.append(("note", "devices", f"{len(scan())} NVIDIA PCI functions on this machine", None, "nvcore devices"))
    keys = ("severity", "check", "text", "code", "remedy")
    return [{**dict(zip(keys, finding, strict=True)), "plugin": "nvcore"} for finding in found]


def devices(context: Context) -> int:
    """`nvcore devices`; needs no daemon."""
    context.view("devices", scan())
    return 0


def dump(context: Context) -> int:
    """`nvcore dump`: have a bundle written, and print its folder."""
    folder = os.path.abspath(context.given.words[0]) if context.given.words else None
    answer = context.call("io.nvcore.Host.Dump", {"folder": folder}, timeout=_LONG)
    context.out(document("nvcore.dump/1", answer) if context.output == "json" else f"{answer['folder']}\n")
    return 0


def stop(context: Context) -> int:
    """`nvcore stop`: ask, and wait until the socket has gone."""
    context.call("io.nvcore.Host.Stop")
    deadline = time.monotonic() + context.timeout
    while os.path.exists(context.socket):
        if time.monotonic() > deadline:
            raise WaitTimeout("the daemon did not stop", expected=f"within {context.timeout:g} s", remedy="look at its log")
        time.sleep(0.02)
    return 0
