"""Find the CUDA compiler for a torch build, the pip packages that provide one, and the architectures to compile for.

As a script, run with the Python of the build, it prints the packages that pip must install to get a compiler. It prints
nothing if torch is a CPU build or a compiler is installed. ``make`` runs the script; setup.py and tools/cuda_build.py
import the module. Standard library only.
"""

import importlib.util
import os
import pathlib
import re
import shutil
import subprocess

USUAL_HOME = pathlib.Path("/usr/local/cuda")
# nvcc, its headers, its optimizer, and <nv/target>, which cuda_fp16.h includes. PyPI has a complete compiler since
# CUDA 13.
PACKAGES = ("nvidia-cuda-nvcc", "nvidia-cuda-crt", "nvidia-nvvm", "nvidia-cuda-cccl")
OLDEST_ON_PYPI = 13
DEFAULT_ARCHS = ((8, 0), (9, 0))


def major(version):
    return int(version.split(".")[0])


def compiler_packages(torch_cuda):
    """Return the pip requirements of the compiler for torch's CUDA version.

    All have the same minor version, because ptxas rejects the output of another version's nvcc.
    """
    if major(torch_cuda) < OLDEST_ON_PYPI:
        return []
    minor = ".".join(torch_cuda.split(".")[:2])
    return [f"{package}=={minor}.*" for package in PACKAGES]


def mend(torch_cuda):
    """Return a message that says how to install a compiler for torch's CUDA version."""
    toolkit = f"install the CUDA {torch_cuda} toolkit and set CUDA_HOME to its folder"
    packages = " ".join(f'"{package}"' for package in compiler_packages(torch_cuda))
    return f"{toolkit}, or run: pip install {packages}" if packages else toolkit


def _output(*command):
    """Return the output of a command, stdout and stderr; "" if it cannot be run."""
    try:
        process = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    except OSError:
        return ""
    return process.stdout


def wheel_folders(torch_cuda):
    """Return the folders of the CUDA wheels of torch and of the compiler: site-packages/nvidia/cu13."""
    spec = importlib.util.find_spec("nvidia")
    parents = spec.submodule_search_locations if spec else None
    return [folder for parent in parents or [] if (folder := pathlib.Path(parent, f"cu{major(torch_cuda)}")).is_dir()]


def home_of(nvcc):
    """Return the toolkit folder of an nvcc found on PATH, which may be a link into the toolkit or a wrapper script."""
    top = re.search(r"^#\$ TOP=(.+)$", _output(nvcc, "--dryrun", "none.cu"), re.MULTILINE)
    homes = [pathlib.Path(nvcc).parents[1], pathlib.Path(nvcc).resolve().parents[1]]
    homes += [pathlib.Path(top.group(1)).resolve()] if top else []
    return next((home for home in homes if (home / "include/cuda_runtime.h").exists()), homes[0])


def nvcc_release(home):
    """Return the release of the nvcc in a toolkit folder, such as "13.0", or None."""
    nvcc = shutil.which("nvcc", path=os.path.join(home, "bin")) if home else None
    found = re.search(r"release (\d+\.\d+)", _output(nvcc, "--version")) if nvcc else None
    return found.group(1) if found else None


def system_homes():
    """Return the possible toolkit folders of this machine, in order of preference."""
    homes = [pathlib.Path(os.environ[name]) for name in ("CUDA_HOME", "CUDA_PATH") if os.environ.get(name)]
    nvcc = shutil.which("nvcc")
    return [*homes, *([home_of(nvcc)] if nvcc else []), USUAL_HOME]


def find(torch_cuda, homes):
    """Return (home, release) of the first nvcc of torch's major version, else of any nvcc, else (None, None)."""
    found = [(home, release) for home in homes if (release := nvcc_release(home))]
    fitting = [pair for pair in found if major(pair[1]) == major(torch_cuda)]
    return [*fitting, *found, (None, None)][0]


def missing_packages(torch_cuda, homes):
    """Return the requirements to install for torch's CUDA version; [] if one of the homes has a suitable compiler."""
    release = find(torch_cuda, homes)[1]
    return [] if release and major(release) == major(torch_cuda) else compiler_packages(torch_cuda)


def nvcc_archs(home):
    """Return the architectures that a toolkit supports: [(8, 0), ...]."""
    listed = re.findall(r"compute_(\d+)(\d)\b", _output(os.path.join(home, "bin", "nvcc"), "--list-gpu-arch"))
    return [(int(a), int(b)) for a, b in listed]


def arch_list(asked, gpus, known):
    """Return the architectures to compile for in torch's format: "8.0;9.0+PTX".

    PTX of the newest architecture is included, so that newer GPUs can compile it at run time.

    Args:
        asked: TORCH_CUDA_ARCH_LIST; used if set.
        gpus: the architectures of the GPUs of this machine; if there are none, DEFAULT_ARCHS.
        known: the architectures that nvcc and torch support; the result has none newer.
    """
    if asked and asked != "native":
        return asked.replace(" ", ";")
    archs = sorted({min(gpu, max(known)) for gpu in gpus} & set(known)) or [a for a in DEFAULT_ARCHS if a in known]
    return ";".join(f"{a}.{b}" for a, b in archs) + "+PTX"


if __name__ == "__main__":
    import torch

    if torch.version.cuda:
        print(*missing_packages(torch.version.cuda, [*system_homes(), *wheel_folders(torch.version.cuda)]))
