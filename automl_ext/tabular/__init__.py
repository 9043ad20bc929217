"""Tables: fit an ensemble of gradient boosting and other models to a table, and predict new rows."""

from automl_ext.tabular.fit import fit
from automl_ext.tabular.fitted import Fitted, load
from automl_ext.tabular.table.task import TableTask

__all__ = ["Fitted", "TableTask", "fit", "load"]
