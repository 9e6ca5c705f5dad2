"""Import: one entry point at a time, timed, each in its own try, and told apart by what went wrong.

This is the isolation boundary "plugin import": it catches errors and `SystemExit`. Whatever else an import raises passes: on the main
thread, where commands are imported, it may be the operator's Ctrl-C; in the host's watched thread, where everything else is, it ends there
and fails the plugin. Imports nothing of a plugin that was not selected.
"""

from __future__ import annotations

import time
from importlib import import_module

from nvcore.api.errors import PluginError
from nvcore.plugins.states import Plugin


class ImportFailed(PluginError):
    """A plugin's entry point could not be imported."""

    code = "NVC-1101"


class ImportExited(ImportFailed):
    """A plugin's import called `sys.exit`."""

    code = "NVC-1102"


class ImportMissing(ImportFailed):
    """A module that a plugin imports is not installed."""

    code = "NVC-1103"


def _blame(error: BaseException) -> str | None:
    """File and line of what does not compile, or of the innermost frame that is not the import machinery's. `traceback` would count as what
    the plugin brought."""
    where, trace = None, error.__traceback__
    while trace is not None:
        name = trace.tb_frame.f_code.co_filename
        if not name.startswith("<frozen"):
            where = f"{name}:{trace.tb_lineno}"
        trace = trace.tb_next
    return f"{error.filename}:{error.lineno}" if isinstance(error, SyntaxError) and error.filename else where


def raised(error: BaseException) -> str:
    """What a plugin's exception said, and where, for the reason of a state."""
    return f"raised {type(error).__name__}: {error} at {_blame(error)}"


def import_object(plugin: Plugin, value: str, *, make: bool = False) -> object:
    """Import `module` or `module:attribute`. make: an object of a class. Raises ImportFailed or a subclass, and what is no Exception."""
    module_name, _, attribute = map(str.strip, value.partition(":"))
    try:
        found: object = import_module(module_name)
        for part in filter(None, attribute.split(".")):
            found = getattr(found, part)
        return found() if make and isinstance(found, type) else found
    except ModuleNotFoundError as error:
        raise _missing(plugin, module_name, error) from error
    except (Exception, SystemExit) as error:  # isolation boundary: plugin import
        kind, what = ImportExited if isinstance(error, SystemExit) else ImportFailed, f"raised {type(error).__name__}: {error}"
        raise kind(f"import of {value} {what}", where=_blame(error), remedy=plugin.complaint) from error


def _missing(plugin: Plugin, module_name: str, error: ModuleNotFoundError) -> ImportFailed:
    """Tell "the plugin's own module is not there" from "something that it imports is not there"."""
    name = error.name or "?"
    if module_name == name or module_name.startswith(name + "."):
        what = f"module {name} of {plugin.distribution} is not there, though its metadata names it"
        return ImportMissing(what, remedy=f"pip install --force-reinstall {plugin.distribution}")
    remedy = f"install the distribution that provides {name}; {plugin.distribution} should require it"
    return ImportMissing(f"{module_name} imports {name}, which is not installed", where=_blame(error), remedy=remedy)


def load_objects(plugin: Plugin) -> dict[str, object]:
    """Import every entry point of a selected plugin: family to object. It is failed where the answer is empty."""
    began = time.perf_counter()
    try:
        return {family: import_object(plugin, point.value, make=True) for family, point in plugin.families.items()}
    except ImportFailed as error:
        plugin.fail(error.code, f"{error.what} at {error.where}" if error.where else error.what, error.remedy)
        return {}
    finally:
        plugin.import_ms = round((time.perf_counter() - began) * 1000, 3)
