"""The public names of automl_ext.nas."""

from __future__ import annotations

import pkgutil
from types import ModuleType

import fresh_python
import pytest

import automl_ext
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


@pytest.mark.parametrize("package", [automl_ext, automl_ext.ops, automl_ext.ops.entmax, nas])
def test_names_that_load_at_first_use(package: ModuleType) -> None:
    for name in package.__all__:
        assert getattr(package, name) is not None
        assert name in vars(package), "the second use costs nothing"
    with pytest.raises(AttributeError, match=f"module '{package.__name__}' has no attribute 'nothing'"):
        package.nothing  # noqa: B018


def test_submodules_are_attributes() -> None:
    code = "import json, automl_ext as a; print(json.dumps([a.nas.GDASConfig().form, a.ops.gumbel.__name__]))"
    assert fresh_python.facts(code) == ["darts", "automl_ext.ops.gumbel"]


def test_import_of_automl_ext_does_not_import_nas() -> None:
    assert fresh_python.facts(LOADED) == []
