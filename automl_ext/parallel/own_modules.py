"""The user's own modules, sent to machines that do not have them.

A search space or an environment of the user is pickled by name, so the machine that unpickles it must import its
module. The files of all modules that this process has imported from outside the installed libraries are sent: a few
kilobytes, not the working directory.
"""

from __future__ import annotations

import importlib
import os
import sys
import tempfile
from pathlib import Path
from types import ModuleType

import automl_ext
from automl_ext.training.errors import UserError
from automl_ext.training.user_code import LIBRARIES

LARGEST = 20 * 2**20  # bytes
Files = dict[str, bytes]  # path relative to a folder → content
_PARENT = Path(automl_ext.__file__).parents[1]
_OURS = tuple(f"{_PARENT / name}{os.sep}" for name in ("automl_ext", "automl_ext_cli"))
_folders: list[tempfile.TemporaryDirectory[str]] = []  # removed when this process ends


def own_modules() -> Files:
    """Return the source files of the user's modules, with all modules of a package.

    Raises:
        UserError: they have more than ``LARGEST`` bytes.
    """
    files: Files = {}
    for name, module in list(sys.modules.items()):
        path = _own_path(name, module)
        if path is None:
            continue
        if path.name != "__init__.py":
            files[f"{name.replace('.', '/')}.py"] = path.read_bytes()
            continue
        for source in path.parent.rglob("*.py"):
            files[f"{name.replace('.', '/')}/{source.relative_to(path.parent).as_posix()}"] = source.read_bytes()
    size = sum(len(content) for content in files.values())
    if size > LARGEST:
        raise UserError(f"--cluster: your modules have {size >> 20} MiB, expected at most {LARGEST >> 20} to send")
    return files


def install(files: Files) -> None:
    """Make modules importable in this process."""
    if not files:
        return
    folder = tempfile.TemporaryDirectory(prefix="automl_ext-modules-")
    _folders.append(folder)
    unpack(files, Path(folder.name))
    sys.path.insert(0, folder.name)
    importlib.invalidate_caches()


def pack(folder: Path) -> Files:
    """Return the content of a folder, without lock files and links."""
    paths = (path for path in sorted(folder.rglob("*")) if path.is_file() and not path.is_symlink())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths if path.name != ".lock"}


def unpack(files: Files, folder: Path) -> None:
    """Write files into a folder."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def _own_path(name: str, module: ModuleType) -> Path | None:
    """Return the source file of a module of the user; None for libraries, this package and the main script."""
    file = getattr(module, "__file__", None)
    if name.startswith("__") or not isinstance(file, str) or not file.endswith(".py"):
        return None
    # What torch.compile generates is in a temporary folder, as modules of the package torch.
    package = getattr(sys.modules.get(name.partition(".")[0]), "__file__", None)
    if _of_library(file) or _of_library(package or ""):
        return None
    return Path(file) if Path(file).is_file() else None


def _of_library(file: str) -> bool:
    """Whether a module's file belongs to this package or to an installed library."""
    return file.startswith((*_OURS, *LIBRARIES)) or bool({"site-packages", "dist-packages"} & {*Path(file).parts})
