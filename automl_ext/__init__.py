"""automl_ext: fast C++ ops for architecture search and reinforcement learning in PyTorch.

The ops are importable from here; algorithms live in ``automl_ext.nas``, what they share in ``automl_ext.training``.
"""

from automl_ext import ops
from automl_ext._native import backend, build_info
from automl_ext._version import __version__
from automl_ext.ops import *  # noqa: F403

__all__ = ["__version__", "backend", "build_info", "ops", *ops.__all__]
