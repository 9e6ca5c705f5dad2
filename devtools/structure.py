"""Rules about size and documentation that no linter knows: DESIGN section 10 and house-style.md as arithmetic.

Pure functions from source text to findings; reads files, runs nothing. Lines of code are lines that hold a token other than a comment
or a docstring.
"""

from __future__ import annotations

import ast
import io
import tokenize
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

__all__ = [
    "BOUNDARIES",
    "CORE_LIMIT",
    "FUNCTION_LIMIT",
    "MODULE_LIMIT",
    "check",
    "code_lines",
    "core_modules",
    "forbidden",
    "undocumented",
]

CORE_LIMIT: Final = 6000
"""The design's bound: lines of code of nvcore without `hw`, `testing` and the libraries `vmm` and `vfio_user`."""

MODULE_LIMIT: Final = 600
"""Lines of any one module, everything counted."""

FUNCTION_LIMIT: Final = 70
"""Lines of any one function, docstring not counted."""

BOUNDARIES: Final = ("plugin import", "hook", "worker", "control call")
"""The four places that may catch everything, because what they call is not ours."""

_TOO_HEAVY: Final = {"asyncio", "numpy"}
_NOT_CORE: Final = {"hw", "testing", "vmm", "vfio_user"}
_SILENT: Final = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENCODING, tokenize.ENDMARKER}
_Documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def code_lines(source: str) -> int:
    """How many lines hold code: blank lines, comments and docstrings do not count; a string behind a constant, which is none, does."""
    docstrings: set[int] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, _Documented) and ast.get_docstring(node, clean=False) is not None:
            docstrings.update(range(node.body[0].lineno, (node.body[0].end_lineno or node.body[0].lineno) + 1))
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in _SILENT:
            lines.update(range(token.start[0], token.end[0] + 1))
    return len(lines - docstrings)


def core_modules(package: Path) -> list[Path]:
    """The modules that the core's limit counts."""
    return [p for p in sorted(package.rglob("*.py")) if p.relative_to(package).parts[0] not in _NOT_CORE]


def _documented_after(body: list[ast.stmt], index: int) -> bool:
    after = body[index + 1] if index + 1 < len(body) else None
    return isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant) and isinstance(after.value.value, str)


def _targets(node: ast.stmt) -> list[str]:
    """The names that an assignment binds."""
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    return [target.id for target in targets if isinstance(target, ast.Name)]


def _public(tree: ast.Module) -> set[str]:
    """What `__all__` lists; without such a list every name that does not begin with an underscore."""
    for node in tree.body:
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None and "__all__" in _targets(node):
            with suppress(ValueError):
                return set(ast.literal_eval(node.value))
    return {name for node in tree.body for name in _targets(node) if not name.startswith("_")}


def undocumented(source: str) -> Iterator[tuple[int, str]]:
    """Public constants and aliases that nothing explains: (line, name). Functions and classes are ruff's (D1).

    A constant is explained by a string under it, by a comment on its line or just above, or by its own form (a Literal's members).
    """
    tree = ast.parse(source)
    public, lines = _public(tree), source.splitlines()
    for index, node in enumerate(tree.body):
        for name in _targets(node):
            if name in public and not name.startswith("__") and name != "TYPE_CHECKING":
                commented = "#" in lines[node.lineno - 1] or (node.lineno > 1 and lines[node.lineno - 2].lstrip().startswith("#"))
                value = getattr(node, "value", None)
                literal = isinstance(value, ast.Subscript) and "Literal" in ast.unparse(value.value)
                if not (commented or literal or _documented_after(tree.body, index)):
                    yield node.lineno, name


def _long_functions(tree: ast.Module) -> Iterator[tuple[int, str, int]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            start = node.body[0].end_lineno or node.lineno if ast.get_docstring(node, clean=False) is not None else node.lineno
            length = (node.end_lineno or node.lineno) - start
            if length > FUNCTION_LIMIT:
                yield node.lineno, node.name, length


def _swallows(handler: ast.ExceptHandler) -> bool:
    """Whether a handler catches everything and does not hand it on."""
    types = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    broad = any(caught is None or ast.unparse(caught) in ("Exception", "BaseException") for caught in types)
    last = handler.body[-1]
    return broad and not (isinstance(last, ast.Raise) and last.exc is None)


def forbidden(source: str) -> Iterator[tuple[int, str]]:
    """What no shipped module may do: (line, finding). Catch everything outside the isolation boundaries, import what costs too much."""
    lines = source.splitlines()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ExceptHandler) and _swallows(node):
            near = lines[max(0, node.lineno - 2) : node.lineno + 1]
            if not any(f"isolation boundary: {place}" in line for line in near for place in BOUNDARIES):
                yield node.lineno, f"catches everything, which only these do, and say so (# isolation boundary: …): {', '.join(BOUNDARIES)}"
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            for name in names:
                if name.partition(".")[0] in _TOO_HEAVY:
                    yield node.lineno, f"imports {name}, which nothing that a host runs may"
        elif isinstance(node, ast.Name) and node.id == "NotImplementedError":
            yield node.lineno, "NotImplementedError: a stub is not a part"


def check(packages: Iterable[Path], core: Path, beside: Iterable[Path] = ()) -> tuple[list[str], str]:
    """All findings over some packages, and one line of numbers. core: the folder of nvcore itself. beside: folders of what is not shipped
    (tests, tools): only the length of their modules is held."""
    findings: list[str] = []
    modules = [path for package in packages for path in sorted(package.rglob("*.py"))]
    counted = set(core_modules(core))
    longest = total = 0
    for path in [*modules, *(path for folder in beside for path in sorted(folder.rglob("*.py")))]:
        length = len(path.read_text().splitlines())
        longest = max(longest, length)
        if length > MODULE_LIMIT:
            findings.append(f"{path}: {length} lines, the limit is {MODULE_LIMIT}")
    for path in modules:
        source = path.read_text()
        try:
            tree = ast.parse(source)
        except SyntaxError as error:
            findings.append(f"{path}:{error.lineno}: {error.msg}")
            continue
        total += code_lines(source) if path in counted else 0
        findings += [f"{path}:{line}: {text}" for line, text in forbidden(source)]
        findings += [f"{path}:{line}: public name {name} is not documented" for line, name in undocumented(source)]
        findings += [f"{path}:{line}: {name} has {n} lines, the limit is {FUNCTION_LIMIT}" for line, name, n in _long_functions(tree)]
    if total > CORE_LIMIT:
        findings.append(f"{core}: the core has {total} lines of code, the limit is {CORE_LIMIT}")
    modules_text = f"{len(modules)} modules, the longest {longest} of {MODULE_LIMIT} lines"
    return findings, f"core {total} of {CORE_LIMIT} lines of code; {modules_text}"
