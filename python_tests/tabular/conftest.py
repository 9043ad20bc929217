"""Without the extra ``tabular``, the tests in this folder do not run."""

from __future__ import annotations

import importlib.util

LIBRARIES = ("pandas", "sklearn", "lightgbm", "xgboost", "optuna")
collect_ignore_glob = [] if all(map(importlib.util.find_spec, LIBRARIES)) else ["test_*"]
