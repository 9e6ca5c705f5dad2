"""Write the committed ABI data of fw_gsp from layout descriptions in JSON: `generate_abi.py SOURCE_FOLDER [TARGET_FOLDER]`.

Owns the text form that `nvcore_fw_gsp.abi.store` reads: one file a version, one line a structure or value, found by
name without parsing the rest; all versions but BASE as differences from BASE.
Run by hand when a version is added; never at build or run time. Standard library only.
Input: one JSON file a version with version, source, enums {name: value}, structs {name: {size, fields: [{name, offset, size, type}]}}.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

BASE = "570.144"  # the version that the others are written as differences from: the one most users run
CODES = {"NvU8": "1", "NvU16": "2", "NvU32": "4", "NvU64": "8", "NvBool": "b", "NvHandle": "h", "char": "c", "NvS32": "s4", "NvS64": "s8"}
TYPE = re.compile(r"^(?P<base>.*?)(?P<dims>(?:\[\d+\])*)$")


def count_of(dims: str) -> int:
    """Number of elements of "[2][3]"; 1 without brackets."""
    count = 1
    for dim in re.findall(r"\d+", dims):
        count *= int(dim)
    return count


def type_code(struct: str, field: dict[str, Any], structs: dict[str, Any]) -> str:
    """The type of a field in the text form, with its dimensions."""
    match = TYPE.match(field["type"])
    assert match is not None
    base, dims = match["base"], match["dims"]
    if base in ("struct{}", "union{}"):
        return f"{struct}.{field['name']}{dims}" if "/" in struct else f"{struct}/{field['name']}{dims}"
    if base in CODES:
        return CODES[base] + dims
    if base in structs:
        return base + dims
    count = count_of(dims)
    width = field["size"] // count if count else 0
    if base.endswith("*"):
        return f"{base.rstrip('*').replace('{}', '') or 'void'}*{dims}"
    if width in (1, 2, 4, 8):
        return f"{base}={width}{dims}"
    return f"1[{field['size']}]"  # a typedef of an array: its elements are not described, so it is bytes


def split_groups(name: str, struct: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Turn flattened anonymous members ("payload.regWrite", "level[0].size") into structures of their own, named "Outer/payload"."""
    result: dict[str, dict[str, Any]] = {}
    groups = {f["name"]: f for f in struct["fields"] if f["type"].startswith(("struct{}", "union{}")) and not f["type"].endswith("*")}
    own: list[dict[str, Any]] = []
    inner: dict[str, list[dict[str, Any]]] = {group: [] for group in groups}
    for field in struct["fields"]:
        path = field["name"].replace("[0]", "")
        parents = [g for g in groups if path.startswith(g.replace("[0]", "") + ".")]
        if not parents:
            own.append(field)
            continue
        parent = max(parents, key=len)
        start = groups[parent]["offset"]
        leaf = path[len(parent.replace("[0]", "")) + 1 :]
        inner[parent].append({**field, "name": leaf, "offset": field["offset"] - start})
    result[name] = {"size": struct["size"], "fields": own}
    for group, field in groups.items():
        match = TYPE.match(field["type"])
        assert match is not None
        count = count_of(match["dims"])
        members = inner[group]
        size = field["size"] // count if count else max(m["offset"] + m["size"] for m in members)
        result[f"{name}/{group}"] = {"size": size, "fields": members}
    return result


def struct_line(name: str, struct: dict[str, Any], structs: dict[str, Any]) -> str:
    """One structure as one line: name, size, then `field:type` with `@offset` where a field does not follow the one before it."""
    words = [name, str(struct["size"])]
    end = 0
    owner = name
    for field in struct["fields"]:
        code = type_code(owner, field, structs)
        word = f"{field['name']}:{code}"
        if field["offset"] != end:
            word += f"@{field['offset']}"
        if "bit_size" in field:
            word += f"~{field['bit_offset']}+{field['bit_size']}"
        words.append(word)
        end = field["offset"] + field["size"]
    return " ".join(words)


def section_lines(data: dict[str, Any]) -> tuple[dict[str, str], dict[str, str]]:
    """Lines of the two sections by name: structures, values."""
    structs: dict[str, dict[str, Any]] = {}
    for name, struct in data["structs"].items():
        structs.update(split_groups(name, struct))
    values = {n: f"{n} {v}" if isinstance(v, int) else f"{n} ={v}" for n, v in data["enums"].items()}
    return {name: struct_line(name, structs[name], structs) for name in structs}, values


def difference(lines: dict[str, str], base: dict[str, str]) -> list[str]:
    """Lines that differ from the base's, and `NAME !` for each name that only the base has; sorted by name."""
    result = {name: line for name, line in lines.items() if base.get(name) != line}
    result.update({name: f"{name} !" for name in base if name not in lines})
    return [result[name] for name in sorted(result)]


def render(data: dict[str, Any], base: dict[str, Any] | None) -> str:
    """The whole file of one version, as differences from `base` if that is given."""
    structs, values = section_lines(data)
    base_structs, base_values = section_lines(base) if base else ({}, {})
    lines = ["nvcore-abi 1", f"version {data['version']}", f"source {data['source']}"]
    lines += [f"base {base['version']}"] if base else []
    lines += ["", "[structs]", *difference(structs, base_structs), "", "[values]", *difference(values, base_values)]
    return "\n".join(lines) + "\n"


def main(arguments: list[str]) -> int:
    """Write one file a version; print name, lines and bytes of each."""
    if not 1 <= len(arguments) <= 2:
        print(__doc__, file=sys.stderr)
        return 2
    source = Path(arguments[0])
    target = Path(arguments[1]) if len(arguments) > 1 else Path(__file__).parent.parent / "nvcore_fw_gsp" / "abi" / "data"
    target.mkdir(parents=True, exist_ok=True)
    base = json.loads((source / f"{BASE}.json").read_text())
    for path in sorted(source.glob("*.json")):
        data = json.loads(path.read_text())
        text = render(data, None if data["version"] == BASE else base)
        (target / f"{data['version']}.txt").write_text(text)
        print(f"{data['version']}: {text.count(chr(10))} lines, {len(text)} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
