"""The contract check of a plugin's files: that they compile, and what they import. They are read, not run.

Owns nothing. The test's thread. Called by `check_plugin_module`, and tells the file and line of what it finds.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Final

from nvcore.testing.contract import broken

__all__ = ["check_imports"]

_ROOMS: Final = ("api", "hw", "vmm", "locks", "vfio_user")
_HEAVY: Final = ("asyncio", "numpy")
"""What no module brings into a daemon by being imported. Inside a function it may be imported: who calls that asked for it."""

_HOOK: Final = "nvcore.api.hookimpl"


def check_imports(modules: Iterable[ModuleType]) -> None:
    """Hold the files of a plugin's modules, or of the packages that they lie in, against clause module-imports."""
    for module in modules:
        trees = {path: _parsed(path, module.__name__) for path in _sources(module)}
        for path, tree in trees.items():
            for line, name in _imports(tree):
                room = name.split(".")[1] if "." in name else ""
                if name.partition(".")[0] == "nvcore" and room not in _ROOMS:
                    broken("module-imports", module.__name__, f"{path}:{line} imports {name}; public are {', '.join(_ROOMS)}")
        _check_weight(module, trees)


def _parsed(path: Path, who: str) -> ast.Module:
    try:
        return ast.parse(path.read_bytes(), str(path))  # of bytes it reads the line that names their encoding
    except SyntaxError as error:
        broken("module-imports", who, f"{path}:{error.lineno} does not compile: {error.msg}")
    except ValueError as error:  # a zero byte
        broken("module-imports", who, f"{path} does not compile: {error}")


def _check_weight(module: ModuleType, trees: dict[Path, ast.Module]) -> None:
    """From the files in which hooks are, along the imports that are made when a file is imported, to what no daemon wants. A file that
    only a command imports is not met."""
    named = {_name(path, module).removesuffix(".__init__"): path for path in trees}
    reached = [path for path, tree in trees.items() if path == _file(module) or _HOOK in (name for _, name in _imports(tree))]
    for path in reached:  # grows
        mine = _name(path, module)
        for line, name in [(0, mine), *_imports(trees[path], at_import=True, within=mine)]:
            if name.partition(".")[0] in _HEAVY:
                broken("module-imports", module.__name__, f"{path}:{line} imports {name}; import it in the function that uses it")
            parts = name.split(".")
            for known in (".".join(parts[:count]) for count in range(1, len(parts) + 1)):  # the packages above it are imported, too
                if known in named and named[known] not in reached:
                    reached.append(named[known])


def _file(module: ModuleType) -> Path | None:
    return Path(module.__file__) if module.__file__ is not None else None


def _package(module: ModuleType) -> Path | None:
    """The folder of the package that a module lies in, or is."""
    path, top = _file(module), module.__name__.partition(".")[0]
    if path is None:
        return None
    for _ in range(module.__name__.count(".") if path.name != "__init__.py" else module.__name__.count(".") + 1):
        path = path.parent
    return path if path.is_dir() and path.name == top else None


def _sources(module: ModuleType) -> list[Path]:
    """The files of a module, or of the whole package that it lies in."""
    folder, path = _package(module), _file(module)
    if folder is not None:
        return [found for found in sorted(folder.rglob("*.py")) if found == path or not _of_tests(found.relative_to(folder))]
    return [path] if path is not None else []


def _of_tests(path: Path) -> bool:
    """Whether a file in a package is one of its tests, by the rules of pytest."""
    return "tests" in path.parts or path.name == "conftest.py" or path.name.startswith("test_") or path.name.endswith("_test.py")


def _name(path: Path, module: ModuleType) -> str:
    """The name of a file of a module's package, with `__init__` where that is its name."""
    folder = _package(module)
    if folder is None:
        return module.__name__
    return ".".join(path.relative_to(folder.parent).with_suffix("").parts)


def _imports(tree: ast.AST, *, at_import: bool = False, within: str = "") -> Iterator[tuple[int, str]]:
    """Line and name of everything imported; at_import: only what the import of the file imports. within: the file's own name, without which
    relative imports are left out."""
    for node in _run_at_import(tree) if at_import else ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and (not node.level or within):
            above = ".".join(within.split(".")[: -node.level]) if node.level else ""
            base = ".".join(part for part in (above, node.module) if part)
            yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)


def _run_at_import(tree: ast.AST) -> Iterator[ast.AST]:
    """The nodes that run when a file is imported: no function's, and not what is for type checkers."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            continue
        if isinstance(node, ast.If) and (guard := _guard(node.test)) is not None:
            for other in node.orelse if guard else node.body:
                yield other
                yield from _run_at_import(other)
            continue
        yield node
        yield from _run_at_import(node)


def _guard(test: ast.expr) -> bool | None:
    """Whether a condition is true for type checkers only (True), for all but those (False), or has nothing to do with them."""
    if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
        inner = _guard(test.operand)
        return None if inner is None else not inner
    return True if ast.unparse(test).rpartition(".")[2] == "TYPE_CHECKING" else None
