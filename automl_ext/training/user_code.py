"""Code of the user: its import by name, the modules that a file may name, and the location of its errors.

Importing a module executes it. A module is therefore imported only if the user names it, on the command line or in
Python. If only a file names it, such as the ``config.json`` of a run directory, :func:`check_trusted` raises an error.
"""

from __future__ import annotations

import difflib
import importlib
import multiprocessing
import os
import pkgutil
import sys
import sysconfig
import traceback
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import automl_ext
from automl_ext.training.errors import UserError
from automl_ext.training.files.reading import short

GUARD = 'if __name__ == "__main__":'  # of scripts that start worker processes
OPTIONS = ("env_id", "wrapper", "function", "space")  # options whose values may name a module: MODULE:NAME
WRAPPERS = "gymnasium.wrappers:"  # Gymnasium's own wrappers are not code of the user

_OURS = os.path.dirname(automl_ext.__file__) + os.sep
LIBRARIES = tuple({sysconfig.get_path(name) + os.sep for name in ("stdlib", "purelib", "platlib")})


def check_not_imported_by_a_worker() -> None:
    """Check that this process is not a new worker process that imports the script which started it.

    Raises:
        UserError: it is, so the script starts its runs when it is imported.
    """
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        raise UserError(f"worker processes import the script that starts them: put its runs below {GUARD}")


def import_module(name: str, where: str) -> ModuleType:
    """Import a module of the user, from the current directory or an installed package.

    The current directory becomes the first entry of ``sys.path``, as with ``python -m``. Worker processes inherit it.

    Args:
        name: the module, for example ``my_envs`` or ``package.module``.
        where: start of the error messages, for example ``--wrapper my_envs:Noise``.

    Raises:
        UserError: the module does not exist, or importing it fails. The message is one line with the location.
    """
    if not all(part.isidentifier() for part in name.split(".")):
        raise UserError(f"{where}: expected a module name, got {short(name)}")
    folder = os.getcwd()
    if folder not in sys.path:
        sys.path.insert(0, folder)
        importlib.invalidate_caches()
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise UserError(f"{where}: importing {name}: {short(error)}{location(error)}") from None
        near = difflib.get_close_matches(name, (module.name for module in pkgutil.iter_modules([folder])), n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise UserError(
            f"{where}: No module named {error.name!r} in {folder}, on PYTHONPATH or installed{hint}"
        ) from None
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise UserError(f"{where}: importing {name} {raised(error)}") from None


def import_object(name: str, option: str) -> Any:
    """Import a class or function of the user.

    Raises:
        UserError: the value has another form, the module cannot be imported, or it does not define the name.
    """
    where = f"{option} {name}"
    module_name, _, attribute = name.partition(":")
    if not attribute.isidentifier():
        raise UserError(f"{where}: expected MODULE:NAME, for example my_module:MyClass")
    module = import_module(module_name, where)
    if not hasattr(module, attribute):
        near = difflib.get_close_matches(attribute, (x for x in vars(module) if not x.startswith("_")), n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise UserError(f"{where}: {module.__file__ or module_name} does not define {attribute}{hint}")
    return getattr(module, attribute)


def own_names(config: Any) -> Iterator[str]:
    """Yield the values that name a module of the user in a configuration, nested dicts of plain values."""
    for key, value in config.items() if isinstance(config, dict) else ():
        if key in OPTIONS:
            values = value if isinstance(value, (list, tuple)) else [value]
            names = [name for value in values if isinstance(value, str) for name in value.split(",")]
            yield from (name.strip() for name in names if ":" in name and not name.strip().startswith(WRAPPERS))
        yield from own_names(value)


def module_in(name: str) -> str:
    """Return the module that a value such as ``my_envs:Grid-v0`` or ``pettingzoo/my_envs:make`` names, or ""."""
    return name.rpartition(":")[0].rpartition("/")[2]


def imported_modules() -> list[str]:
    """Return the modules in this process that are not of this package, the standard library or installed packages.

    A file that names one of them executes no new code. Modules of libraries are excluded, so that a file cannot choose
    among all of their functions.
    """
    files = {name: getattr(module, "__file__", None) for name, module in list(sys.modules.items())}
    return [name for name, file in files.items() if file and not os.path.abspath(file).startswith((_OURS, *LIBRARIES))]


def check_trusted(names: Iterable[str], trust: Iterable[str], source: str | Path) -> None:
    """Raise UserError for modules that a file names and the user does not.

    Args:
        names: values of :data:`OPTIONS`; those without a colon name no module.
        trust: modules that the user names; a package includes its modules.
        source: the file.

    Raises:
        UserError: a module is not trusted; the message names it and the option that allows it.
    """
    trusted = list(trust)
    for name in names:
        module = module_in(name)
        if module and not any(f"{module}.".startswith(f"{t}.") for t in trusted):
            raise UserError(
                f"{source} names the Python module {short(module)[1:-1]} ({short(name)[1:-1]}). Importing it executes "
                "its code, so name it if you trust it, in Python with trust=[…], on the command line with --trust "
                f"{short(module)[1:-1]}"
            )


def raised(error: BaseException, packages: tuple[str, ...] = ()) -> str:
    """Describe an exception of the user's code: "raised KIND: message (file:line)"."""
    text = short(error) if str(error) else ""
    return f"raised {type(error).__name__}{': ' * bool(text)}{text}{location(error, packages)}"


def location(error: BaseException, packages: tuple[str, ...] = ()) -> str:
    """Return " (file:line)" of the innermost frame in the user's code, or else in a library outside ``packages``."""
    for folders in (LIBRARIES, packages, ()):
        found = _frame(error, folders)
        if found:
            return f" ({found})"
    return ""


def is_in_user_code(error: BaseException) -> bool:
    """Return True if a frame of the error is outside this package and all libraries."""
    return bool(_frame(error, LIBRARIES))


def _frame(error: BaseException | None, folders: tuple[str, ...]) -> str:
    """Return the innermost frame outside our package and ``folders``, in the error or in its causes."""
    while error is not None:
        for frame, line in reversed(list(traceback.walk_tb(error.__traceback__))):
            name = frame.f_code.co_filename
            if not name.startswith((_OURS, "<frozen ", *folders)):
                return f"{name}:{line}"
        error = error.__cause__
    return ""
