"""What an import loads: the modules of the package, and their lines."""

from __future__ import annotations

from typing import NamedTuple

import fresh_python

_CODE = """
import importlib, json, sys
importlib.import_module({module!r})
files = [m.__file__ for name, m in sys.modules.items() if name.partition(".")[0] in ("automl_ext", "automl_ext_cli")]
files = [file for file in files if file.endswith(".py")]
print(json.dumps([len(files), sum(len(open(file, encoding="utf-8").readlines()) for file in files)]))
"""


class Loaded(NamedTuple):
    modules: int
    lines: int


def loaded_by(module: str) -> Loaded:
    """Return the number of modules of the package that ``import module`` loads in a new process, and their lines."""
    return Loaded(*fresh_python.facts(_CODE.format(module=module)))
