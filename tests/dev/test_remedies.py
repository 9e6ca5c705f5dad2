"""Every error that a plugin raises by a class of its own says what to do: where it is raised, or for the whole class."""

from __future__ import annotations

import ast
import importlib
import pkgutil
from collections.abc import Iterator
from inspect import Parameter, signature
from pathlib import Path
from types import ModuleType

import pytest

from nvcore.api.errors import NotFoundError, NvcoreError, UsageError


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
            if not (isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and isinstance(node.exc.func, ast.Name | ast.Attribute)):
                continue
            kind: object = module
            for name in ast.unparse(node.exc.func).split("."):
                kind = getattr(kind, name, None)
            if not (isinstance(kind, type) and issubclass(kind, NvcoreError) and kind.__module__.startswith(package)):
                continue
            said = {word.arg for word in node.exc.keywords}
            said |= {name for name, word in signature(kind).parameters.items() if word.default is Parameter.empty}  # it must be given
            if "expected" in said and issubclass(kind, (UsageError, NotFoundError)) and package == "nvcore":
                continue  # the words that would have been right are what to do
            if kind.usual_remedy is None and "remedy" not in said:
                found.append(f"{module.__name__}:{node.lineno} {kind.__name__}")
    return found


@pytest.mark.parametrize("package", ["nvcore_fw_gsp", "nvcore_softgpu", "nvcore_vfio"])
def test_every_error_of_a_plugin_says_what_to_do(package: str) -> None:
    assert silent(package) == []


def test_every_error_of_the_core_says_what_to_do_or_what_would_have_been_right() -> None:
    found = [place for place in silent("nvcore") if not place.startswith(("nvcore.testing.", "nvcore.vmm.", "nvcore.gpu.grants"))]
    assert found == []  # what is left out is read by who writes a plugin: a request that no plugin should make


def test_codes_given_beside_a_remedy_are_of_the_contract_and_the_words_are_not(tmp_path: Path) -> None:
    from devtools.snapshot import render

    package = tmp_path / "nvcore/api"
    package.mkdir(parents=True)
    texts = []
    for remedy in ("look again", "look twice"):
        source = f'class No(Exception):\n    code, exit_code, usual_remedy = "N-1", 4, "{remedy}"\n'
        (package / "errors.py").write_text(f'__all__ = ["No"]\n{source}')
        texts.append(render(package))
    assert texts[0].splitlines()[-3:] == ["class No(Exception)", "    code = 'N-1'", "    exit_code = 4"]
    assert texts[0] == texts[1]


def test_what_is_said_where_it_is_raised_is_preferred() -> None:
    class Usual(NvcoreError):
        usual_remedy = "as always"

    assert (Usual("x").remedy, Usual("x", remedy="this once").remedy, NvcoreError("x").remedy) == ("as always", "this once", None)
