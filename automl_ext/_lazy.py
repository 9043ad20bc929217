"""Packages whose names are imported at their first use (PEP 562), so that unused modules are not loaded.

if TYPE_CHECKING:  # loaded at first use
    from automl_ext.ops.gumbel import gumbel_softmax

__getattr__ = lazy(__name__)
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from typing import Any


def lazy(package: str) -> Callable[[str], Any]:
    """Return a ``__getattr__`` for a package: it imports a name as the package's ``if TYPE_CHECKING`` block says.

    Submodules are attributes too. ``*`` stands for the names in ``__all__`` of the module.

    Args:
        package: its ``__name__``.
    """
    source = sys.modules[package].__spec__.loader.get_source(package)  # type: ignore[union-attr]
    places: dict[str, tuple[str, str]] = {}  # name → module and name there
    for block in ast.parse(source).body:
        if isinstance(block, ast.If) and ast.unparse(block.test) == "TYPE_CHECKING":
            for statement in block.body:
                assert isinstance(statement, ast.ImportFrom)
                assert statement.module is not None
                for alias in statement.names:
                    names = import_module(statement.module).__all__ if alias.name == "*" else [alias.name]
                    places |= {alias.asname or name: (statement.module, name) for name in names}

    def __getattr__(name: str) -> Any:
        if name in places:
            module, there = places[name]
            value = getattr(import_module(module), there)
            setattr(sys.modules[package], name, value)
            return value
        if not name.startswith("_") and find_spec(f"{package}.{name}"):
            return import_module(f"{package}.{name}")
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    return __getattr__
