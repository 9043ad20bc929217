"""The public names of automl_ext.nas."""

from __future__ import annotations

import pkgutil

import fresh_python

from automl_ext import nas

LOADED = """
import json, sys
import automl_ext
print(json.dumps([name for name in sys.modules if name.startswith(("automl_ext.nas", "automl_ext.rl"))]))
"""


def test_names_exist_and_hide_no_subpackage() -> None:
    """A function with the name of a subpackage would replace it as an attribute of the package."""
    assert all(hasattr(nas, name) for name in nas.__all__)
    assert len(set(nas.__all__)) == len(nas.__all__)
    assert {module.name for module in pkgutil.iter_modules(nas.__path__)}.isdisjoint(nas.__all__)


def test_import_of_automl_ext_does_not_import_nas() -> None:
    assert fresh_python.facts(LOADED) == []
