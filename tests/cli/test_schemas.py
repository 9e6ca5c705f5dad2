"""Every JSON document that these commands print fits its schema in the repository."""

from __future__ import annotations

import importlib
import json
import re
from pathlib import Path

import jsonschema  # type: ignore[import-untyped]
import pytest

from nvcore.cli.nouns import NOUNS
from nvcore.cli.output import beside, view
from tests.cli.test_cli import GOOD, ROOT, Site
from tests.plugins.building import SECTION

SCHEMAS = ROOT / "nvcore" / "cli" / "schemas"


@pytest.fixture
def site(tmp_path: Path) -> Site:
    found = Site(tmp_path)
    found.plugin("good", GOOD, family="client")
    found.plugin("settings", SECTION)
    found.plugin("raises", "1 / 0")
    found.plugin("newer", "", family="client", generation=2)
    (found.plugin("hurt", "") / "METADATA").write_bytes(b"\xff")
    (found.folder / "nvcore_drm").mkdir()
    (found.folder / "x.toml").write_text("[plugins.settings]\nslots = 3\n[[gpu]]\nsource = 'pci:0000:41:00.0'\n")
    return found


@pytest.mark.parametrize(
    ("argv", "schema"),
    [
        (["plugins", "list"], "nvcore.plugins/1"),
        (["plugins", "doctor"], "nvcore.plugins/1"),
        (["plugins", "show", "good"], "nvcore.plugins/1"),
        (["plugins", "footprint", "--deny", "drm*"], "nvcore.footprint/1"),
        (["config", "show"], "nvcore.config/1"),
    ],
)
def test_the_document_fits_its_schema(site: Site, argv: list[str], schema: str) -> None:
    document = json.loads(site.run(*argv, "--json", "--config", str(site.folder / "x.toml")).stdout)
    rules = json.loads((SCHEMAS / f"{schema.replace('/', '.')}.json").read_text())
    jsonschema.Draft202012Validator.check_schema(rules)
    jsonschema.validate(document, rules)
    assert document["schema"] == schema
    longest = max(len(value) for value in document.values() if isinstance(value, list))
    assert longest > 0


def test_every_table_shows_keys_of_its_schema_and_every_column_stands_there_once() -> None:
    names = re.findall(r"^\[(\w+) ", (ROOT / "nvcore" / "cli" / "tables.txt").read_text(), re.MULTILINE)
    assert len(names) == len(set(names)) == 8
    for name in set(names) - {"denied"}:
        key, row, _, columns = view(name)
        schema = json.loads((SCHEMAS / f"nvcore.{name}.1.json").read_text())
        items = schema["properties"][key]["items"]
        if "$ref" in items:
            items = schema["$defs"][items["$ref"].rpartition("/")[2]]
        shown = [column for column, _, _ in columns]
        assert len(shown) == len(set(shown)) and {row, *shown} <= {*items["properties"], *({"at"} if name == "events" else ())}
        assert {kind for _, _, kind in columns} <= {"left", "right", "wide", "wide right"}


def test_the_help_page_names_every_noun_in_order_and_each_has_a_page() -> None:
    page = beside("help/nvcore.txt").partition("nouns of the core\n")[2].partition("\n\n")[0]
    assert {line.split()[0] for line in page.splitlines()} == set(NOUNS)
    for noun in NOUNS:
        assert beside(f"help/{noun}.txt").startswith(f"usage: nvcore {noun}")


def test_every_verb_is_served_by_a_function_and_stands_on_its_page() -> None:
    for noun, verbs in NOUNS.items():
        for verb, (place, word, *options) in verbs.items():
            module, _, function = place.partition(":")
            assert callable(getattr(importlib.import_module(f"nvcore.{module}"), function))
            assert re.fullmatch(r"-|[A-Z]+|\[[A-Z]+\]", word) and all(option == "rows" or option.count(":") == 1 for option in options)
            page = beside(f"help/{noun}.txt")
            said = [verb, *(option.partition(":")[0] for option in options if option.startswith("--"))]
            assert all(one in page for one in (*said, word) if one != "-"), (noun, verb)
