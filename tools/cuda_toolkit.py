"""Find the CUDA compiler that fits a torch, the pip packages that provide one, and the GPUs to compile for.

As a script, run with the Python that builds, it prints the packages to install to get a compiler, if one is needed.
``make`` runs it; setup.py and tools/cuda_build.py import it. Standard library only.
"""

import importlib.util
import os
import pathlib
import re
import shutil
import subprocess

USUAL_HOME = pathlib.Path("/usr/local/cuda")
# nvcc itself, its headers, its optimizer, and <nv/target>, which cuda_fp16.h includes. Only since CUDA 13 does PyPI
# have a whole compiler.
PACKAGES = ("nvidia-cuda-nvcc", "nvidia-cuda-crt", "nvidia-nvvm", "nvidia-cuda-cccl")
OLDEST_ON_PYPI = 13
DEFAULT_ARCHS = ((8, 0), (9, 0))


def major(version):
    return int(version.split(".")[0])


def compiler_packages(torch_cuda):
    """Return the pip packages of the compiler for torch's CUDA, all of one minor version: ptxas requires nvcc's."""
    if major(torch_cuda) < OLDEST_ON_PYPI:
        return []
    minor = ".".join(torch_cuda.split(".")[:2])
    return [f"{package}=={minor}.*" for package in PACKAGES]


def mend(torch_cuda):
    """Return instructions to get a compiler for torch's CUDA."""
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
    """Return the folders of headers, libraries and programs of NVIDIA's wheels: site-packages/nvidia/cu13."""
    spec = importlib.util.find_spec("nvidia")
    parents = spec.submodule_search_locations if spec else None
    return [folder for parent in parents or [] if (folder := pathlib.Path(parent, f"cu{major(torch_cuda)}")).is_dir()]


def home_of(nvcc):
    """Return the toolkit's folder of an nvcc found on PATH, which may be a link or a script."""
    top = re.search(r"^#\$ TOP=(.+)$", _output(nvcc, "--dryrun", "none.cu"), re.MULTILINE)
    homes = [pathlib.Path(nvcc).parents[1], pathlib.Path(nvcc).resolve().parents[1]]
    homes += [pathlib.Path(top.group(1)).resolve()] if top else []
    return next((home for home in homes if (home / "include/cuda_runtime.h").exists()), homes[0])


def nvcc_release(home):
    """Return the release of the nvcc in a toolkit's folder, for example "13.0", or None."""
    nvcc = shutil.which("nvcc", path=os.path.join(home, "bin")) if home else None
    found = re.search(r"release (\d+\.\d+)", _output(nvcc, "--version")) if nvcc else None
    return found.group(1) if found else None


def system_homes():
    """Return the folders of toolkits on this machine, the most likely first."""
    homes = [pathlib.Path(os.environ[name]) for name in ("CUDA_HOME", "CUDA_PATH") if os.environ.get(name)]
    nvcc = shutil.which("nvcc")
    return [*homes, *([home_of(nvcc)] if nvcc else []), USUAL_HOME]


def find(torch_cuda, homes):
    """Return (home, release) of the first nvcc of torch's major version, else of any nvcc, else (None, None)."""
    found = [(home, release) for home in homes if (release := nvcc_release(home))]
    fitting = [pair for pair in found if major(pair[1]) == major(torch_cuda)]
    return [*fitting, *found, (None, None)][0]


def missing_packages(torch_cuda, homes):
    """Return the pip packages needed to get a compiler for torch's CUDA; [] if one of the homes has it."""
    release = find(torch_cuda, homes)[1]
    return [] if release and major(release) == major(torch_cuda) else compiler_packages(torch_cuda)


def nvcc_archs(home):
    """Return the architectures that a toolkit compiles for: [(8, 0), ...]."""
    listed = re.findall(r"compute_(\d+)(\d)\b", _output(os.path.join(home, "bin", "nvcc"), "--list-gpu-arch"))
    return [(int(a), int(b)) for a, b in listed]


def arch_list(asked, gpus, known):
    """Return the architectures to compile for, in torch's format: "8.0;9.0+PTX".

    Args:
        asked: value of TORCH_CUDA_ARCH_LIST, which is used if it is set.
        gpus: architectures of the machine's GPUs. Without a GPU: DEFAULT_ARCHS.
        known: architectures that nvcc and torch support; newer GPUs use the newest of these.

    PTX of the newest one can be compiled by later GPUs.
    """
    if asked and asked != "native":
        return asked.replace(" ", ";")
    archs = sorted({min(gpu, max(known)) for gpu in gpus} & set(known)) or [a for a in DEFAULT_ARCHS if a in known]
    return ";".join(f"{a}.{b}" for a, b in archs) + "+PTX"


if __name__ == "__main__":
    import torch

    if torch.version.cuda:
        print(*missing_packages(torch.version.cuda, [*system_homes(), *wheel_folders(torch.version.cuda)]))
