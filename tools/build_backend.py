"""The build backend of pyproject.toml: setuptools', which downloads torch only if the environment has none.

pip hides the packages of an environment from an isolated build, although the build runs with the environment's Python.
The gradients in C++ are for one minor version of torch, so that of the environment is the right one; also, torch with
CUDA is several GB. Other tools (build, uv) run the build with another Python: it then requires torch.
"""

import importlib.metadata
import sys
import sysconfig

from setuptools.build_meta import *  # noqa: F403

PACKAGES = sysconfig.get_path("platlib")


def torch_requirement():
    """Return ["torch>=2.10"], or [] if torch is installed in the folder PACKAGES."""
    installed = any(importlib.metadata.distributions(name="torch", path=[PACKAGES]))
    return [] if installed else ["torch>=2.10"]


def requires(config_settings=None):
    """Return what a build needs besides pyproject.toml's list. setuptools would run setup.py, which imports torch."""
    return torch_requirement()


get_requires_for_build_wheel = get_requires_for_build_editable = get_requires_for_build_sdist = requires
if not torch_requirement() and PACKAGES not in sys.path:
    sys.path.append(PACKAGES)  # the last: what the isolated build has installed comes first
