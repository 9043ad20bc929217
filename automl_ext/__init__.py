"""automl_ext: fast C++/CUDA ops for architecture search and reinforcement learning in PyTorch."""

from automl_ext._native import backend, build_info
from automl_ext._version import __version__

__all__ = ["__version__", "backend", "build_info"]
