"""The rules of size and documentation count what they say, and the API snapshot notices every change of a signature."""

from __future__ import annotations

from pathlib import Path

import pytest

MODULE = '''"""Docstring
of two lines."""

# a comment
import os  # code


def name() -> str:
    """What it does."""
    text = """a string
    that is code"""
    return text + os.sep
'''


def test_only_code_counts() -> None:
    from devtools.structure import code_lines

    assert code_lines(MODULE) == 5
    assert code_lines("") == 0
    assert code_lines('LIMIT = 3\n"""A string behind a constant, which is no docstring."""\n') == 2


def test_the_core_is_the_host_without_data_kit_and_libraries(tmp_path: Path) -> None:
    from devtools.structure import core_modules

    for name in ("gpu/a.py", "hw/b.py", "testing/c.py", "vmm/d.py", "vfio_user/e.py", "locks/f.py", "g.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert {p.name for p in core_modules(tmp_path)} == {"a.py", "f.py", "g.py"}


def test_long_modules_and_functions_and_a_large_core_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from devtools import structure

    core = tmp_path / "nvcore"
    core.mkdir()
    (core / "long.py").write_text("x = 1\n" * 601)
    (core / "deep.py").write_text("def f():\n" + "    x = 1\n" * 71)
    monkeypatch.setattr(structure, "CORE_LIMIT", 100)
    findings, numbers = structure.check([core], core)
    text = "\n".join(findings)
    assert "601 lines" in text and "f has 71 lines" in text and "core has 673 lines of code" in text
    assert "2 modules" in numbers
    (tests := tmp_path / "tests").mkdir()
    (tests / "test_long.py").write_text("def undocumented(): pass\n" * 601)
    assert f"{tests}/test_long.py: 601 lines, the limit is 600" in structure.check([], core, [tests])[0]
    assert not any("undocumented" in finding for finding in structure.check([], core, [tests])[0])
    monkeypatch.setattr(structure, "CORE_LIMIT", 673)
    findings, numbers = structure.check([core], core)
    assert not any("core has" in finding for finding in findings) and "core 673 of 673 lines of code" in numbers


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ('__all__ = ["A"]\nA = 1\n', ["A"]),
        ('__all__ = ["A"]\nA = 1\n"""One."""\n', []),
        ('__all__ = ["A"]\nA = 1  # one\n', []),
        ('__all__ = ["A"]\n# one\nA: int = 1\n', []),
        ('__all__ = ["A"]\nA = Literal["x"]\n', []),
        ('__all__ = []\nA = 1\n', []),
        ('__all__: list[str] = ["B"]\nA = B = 1\n', ["B"]),
        ('A: int = 1\n_B = 2\n', ["A"]),
        ('TYPE_CHECKING = False\nif TYPE_CHECKING:\n    import x\n', []),
        ('__all__ = [*other.__all__, "A"]\nA = 1\n', ["A"]),
    ],
)
def test_a_public_constant_without_a_word_is_found(source: str, found: list[str]) -> None:
    from devtools.structure import undocumented

    assert [name for _, name in undocumented(source)] == found


def test_every_public_name_of_core_and_plugins_is_asked_for_a_word(tmp_path: Path) -> None:
    from devtools.structure import check

    core, plugin = tmp_path / "nvcore", tmp_path / "plugins/x/nvcore_x"
    for path in (core / "api/a.py", core / "gpu/b.py", plugin / "room/c.py"):
        path.parent.mkdir(parents=True)
        path.write_text('__all__ = ["LIMIT"]\nLIMIT = 1\n')
    findings, _ = check([core, plugin], core)
    assert [finding.rpartition("/")[2] for finding in findings] == [f"{name}.py:2: public name LIMIT is not documented" for name in "abc"]


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("try:\n    f()\nexcept Exception as error:\n    log(error)\n", True),
        ("try:\n    f()\nexcept:\n    pass\n", True),
        ("try:\n    f()\nexcept (OSError, Exception):\n    pass\n", True),
        ("try:\n    f()\nexcept Exception as error:  # isolation boundary: hook\n    log(error)\n", False),
        ("try:\n    f()\nexcept Exception as error:  # isolation boundary: elsewhere\n    log(error)\n", True),
        ("try:\n    f()\nexcept BaseException:\n    close()\n    raise\n", False),
        ("try:\n    f()\nexcept OSError:\n    pass\n", False),
        ("import asyncio\n", True),
        ("def f():\n    from numpy import array\n", True),
        ("raise NotImplementedError\n", True),
    ],
)
def test_what_no_shipped_module_may_do_is_found(source: str, found: bool) -> None:
    from devtools.structure import forbidden

    assert bool(list(forbidden(source))) == found


API = '''"""Contract."""
from typing import Protocol
import attrs
__all__ = ["Bus", "LIMIT", "Range", "find"]
LIMIT = 3

@attrs.frozen
class Range:
    """A range."""
    start: int
    size: int = 0
    _hidden: int = 0

class Bus(Protocol):
    """A bus."""
    @may_sleep
    def scan(self, *, limit: int = LIMIT) -> list[Range]:
        """Scan."""

def find(name: str, /) -> Range: ...
def _private() -> None: ...
'''


def snapshot(folder: Path, source: str) -> str:
    from devtools.snapshot import render

    package = folder / "nvcore/api"
    package.mkdir(parents=True, exist_ok=True)
    (package / "bus.py").write_text(source)
    return render(package)


def test_the_snapshot_has_every_public_name_once(tmp_path: Path) -> None:
    assert snapshot(tmp_path, API).split("\n\n")[1].splitlines() == [
        "[nvcore.api.bus]",
        "LIMIT = 3",
        "def find(name: str, /) -> Range",
        "@attrs.frozen class Range",
        "    start: int",
        "    size: int = 0",
        "class Bus(Protocol)",
        "    @may_sleep def scan(self, *, limit: int=LIMIT) -> list[Range]",
    ]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("LIMIT = 3", "LIMIT = 4"),
        ("start: int", "start: float"),
        ("start: int\n    size: int = 0", "size: int = 0\n    start: int"),
        ("    @may_sleep\n", ""),
        ("limit: int = LIMIT", "limit: int = 7"),
        ("attrs.frozen", "attrs.define"),
        ("name: str, /", "name: str"),
        ("class Bus(Protocol)", "class Bus(Device)"),
    ],
)
def test_the_snapshot_changes_with_the_contract(tmp_path: Path, old: str, new: str) -> None:
    assert old in API
    assert snapshot(tmp_path, API) != snapshot(tmp_path, API.replace(old, new))


def test_the_snapshot_does_not_change_with_words_or_private_names(tmp_path: Path) -> None:
    reworded = API.replace("A bus.", "Any bus.").replace("_private", "_secret").replace("_hidden", "_h")
    assert snapshot(tmp_path, API) == snapshot(tmp_path, reworded)


def test_the_mark_of_a_class_is_shown_at_each_of_its_methods(tmp_path: Path) -> None:
    whole = API.replace("    @may_sleep\n", "").replace("class Bus", "@may_sleep\nclass Bus")
    assert snapshot(tmp_path, API) == snapshot(tmp_path, whole)
