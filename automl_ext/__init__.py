"""Fast C++ and CUDA ops for architecture search and reinforcement learning in PyTorch.

The ops are importable from here. ``automl_ext.nas`` and ``automl_ext.rl`` hold the algorithms, ``automl_ext.training``
the run infrastructure.
"""

from typing import TYPE_CHECKING

from automl_ext import ops
from automl_ext._lazy import lazy
from automl_ext._native import backend, build_info
from automl_ext._version import __version__

if TYPE_CHECKING:  # loaded at first use
    from automl_ext.ops import *  # noqa: F403
    from automl_ext.training.machine.memory import keep_freed_memory

__all__ = ["__version__", "backend", "build_info", "keep_freed_memory", "ops", *ops.__all__]

__getattr__ = lazy(__name__)
