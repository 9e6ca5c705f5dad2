"""Every error that a plugin raises by a class of its own says what to do: where it is raised, or for the whole class."""

from __future__ import annotations

import ast
import importlib
import pkgutil
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from nvcore.api.errors import NvcoreError


def modules(package: str) -> Iterator[ModuleType]:
    root = importlib.import_module(package)
    for found in pkgutil.walk_packages(root.__path__, f"{package}."):
        if not found.name.endswith("__main__"):
            yield importlib.import_module(found.name)


def silent(package: str) -> list[str]:
    """Places that raise an error of the package's own without a remedy."""
    found = []
    for module in modules(package):
        assert module.__file__ is not None
        for node in ast.walk(ast.parse(Path(module.__file__).read_text(encoding="utf-8"))):
            if not (isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and isinstance(node.exc.func, ast.Name)):
                continue
            kind = getattr(module, node.exc.func.id, None)
            if not (isinstance(kind, type) and issubclass(kind, NvcoreError) and kind.__module__.startswith(package)):
                continue
            if kind.usual_remedy is None and "remedy" not in {word.arg for word in node.exc.keywords}:
                found.append(f"{module.__name__}:{node.lineno} {kind.__name__}")
    return found


@pytest.mark.parametrize("package", ["nvcore_fw_gsp", "nvcore_softgpu", "nvcore_vfio"])
def test_every_error_of_a_plugin_says_what_to_do(package: str) -> None:
    assert silent(package) == []


def test_what_is_said_where_it_is_raised_is_preferred() -> None:
    class Usual(NvcoreError):
        usual_remedy = "as always"

    assert (Usual("x").remedy, Usual("x", remedy="this once").remedy, NvcoreError("x").remedy) == ("as always", "this once", None)
