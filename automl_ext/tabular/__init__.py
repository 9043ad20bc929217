"""Tables: fit an ensemble of gradient boosting and other models to a table, and predict new rows."""

from typing import Any

from automl_ext.tabular.fit import fit
from automl_ext.tabular.fitted import Fitted, load
from automl_ext.tabular.table.task import TableTask

__all__ = ["Fitted", "TableTask", "TabularClassifier", "TabularRegressor", "fit", "load"]


def __getattr__(name: str) -> Any:
    if name in ("TabularClassifier", "TabularRegressor"):  # they import scikit-learn
        from automl_ext.tabular import estimators

        return getattr(estimators, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
