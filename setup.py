"""The build that ships: one extension module, for the CPU always, for CUDA by a printed decision.

AUTOML_EXT_CUDA=auto|0|1 decides for CUDA (auto: where nvcc, a CUDA build of torch and equal majors are found).
The presence of a GPU plays no part. Nothing here is tuned to the building machine: the CPU kernels choose their
instruction set at run time.
"""

import os
import pathlib
import re
import shutil
import subprocess
import sys
import sysconfig

import setuptools

ROOT = pathlib.Path(__file__).resolve().parent
OLDEST_TORCH = (2, 10)
OLDEST_SETUPTOOLS = 77  # reads the licence as pyproject.toml writes it


def fail(message):
    sys.exit(f"automl_ext: {message}")


try:
    import torch
    from torch.utils.cpp_extension import CUDA_HOME, BuildExtension, CppExtension, CUDAExtension
except ModuleNotFoundError as error:
    fail(f"building needs {error.name}: run `pip install torch ninja`, then `pip install --no-build-isolation .`")


def torch_minor(version):
    return tuple(int(part) for part in version.split(".")[:2])


def nvcc_release(cuda_home):
    """ "13.0" of the nvcc in cuda_home, or None."""
    nvcc = shutil.which("nvcc", path=os.path.join(cuda_home, "bin")) if cuda_home else None
    if nvcc is None:
        return None
    output = subprocess.run([nvcc, "--version"], capture_output=True, text=True, check=False).stdout
    found = re.search(r"release (\d+\.\d+)", output)
    return found.group(1) if found else None


def decide_cuda(asked, nvcc, torch_cuda, has_sources):
    """Whether to build for CUDA, and the reason in words. ``asked`` is AUTOML_EXT_CUDA.

    Raises SystemExit with one line when CUDA is demanded and cannot be had.
    """
    if asked not in ("auto", "0", "1"):
        fail(f"AUTOML_EXT_CUDA: expected auto, 0 or 1, got {asked!r}")
    if asked == "0":
        return False, "AUTOML_EXT_CUDA=0"
    if not has_sources:
        missing = "this version has no CUDA kernels"
    elif torch_cuda is None:
        missing = "torch is a CPU build; install a CUDA build of torch"
    elif nvcc is None:
        missing = (
            f"torch has CUDA {torch_cuda} but no nvcc was found; install the CUDA {torch_cuda} toolkit or set CUDA_HOME"
        )
    elif nvcc.split(".")[0] != torch_cuda.split(".")[0]:
        missing = f"nvcc is {nvcc} but torch has CUDA {torch_cuda}; set CUDA_HOME to a toolkit of that major version"
    else:
        return True, f"nvcc {nvcc} and torch's CUDA {torch_cuda} agree"
    if asked == "1":
        fail(f"AUTOML_EXT_CUDA=1, but {missing}")
    return False, missing


def compiler_version():
    """The C++ compiler's first line of --version; one line of help when there is none."""
    compiler = os.environ.get("CXX", "c++").split()[0]
    path = shutil.which(compiler)  # torch calls this one and no other
    if path is None:
        fail(f"no C++ compiler ({compiler}) found: install one (Debian: apt install g++) or set CXX")
    output = subprocess.run([path, "--version"], capture_output=True, text=True, check=False).stdout
    return output.splitlines()[0] if output else path


def limit_jobs():
    """A file with torch's headers takes up to 2 GB to compile; more jobs than memory end in a killed compiler."""
    if "MAX_JOBS" not in os.environ and hasattr(os, "sysconf"):
        gigabytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
        os.environ["MAX_JOBS"] = str(max(1, min(os.cpu_count() or 1, int(gigabytes / 2))))


class Build(BuildExtension):
    """Also leaves the facts of the build beside the library, for automl_ext._native to compare."""

    def run(self):
        compiler = compiler_version()
        print(f"automl_ext: CUDA: {'yes' if use_cuda else 'no'} ({reason}); torch {torch.__version__}; {compiler}")
        limit_jobs()
        super().run()
        facts = {
            "TORCH_VERSION": torch.__version__,
            "CUDA_VERSION": torch.version.cuda if use_cuda else None,
            "CUDA_DECISION": f"{'yes' if use_cuda else 'no'}: {reason}",
            "COMPILER": compiler,
        }
        lines = [f"{name}: str | None = {value!r}\n" for name, value in facts.items()]
        target = pathlib.Path(self.get_ext_fullpath("automl_ext._C")).parent / "_build.py"
        target.write_text('"""Written by setup.py."""\n\n' + "".join(lines))


def extension():
    sources = [*ROOT.glob("csrc/*.cpp"), *ROOT.glob("csrc/*/*.cpp")]
    openmp = [] if sys.platform == "darwin" else ["-fopenmp"]
    # What is rounded once, and what twice, is said in the sources (mul_add).
    cxx = ["-O3", "-g0", "-fvisibility=hidden", "-ffp-contract=off", *openmp]
    flags = {"cxx": cxx}
    kind = CppExtension
    if use_cuda:
        kind = CUDAExtension
        sources += ROOT.glob("csrc/*/*.cu")
        flags["nvcc"] = ["-O3"]
    return kind(
        "automl_ext._C",
        sorted(str(path.relative_to(ROOT)) for path in sources),
        extra_compile_args=flags,
        extra_link_args=openmp,
    )


if __name__ == "__main__":
    if not (pathlib.Path(sysconfig.get_path("include")) / "Python.h").exists():
        fail("Python.h is missing: install Python's headers (Debian: apt install python3-dev)")
    if int(setuptools.__version__.split(".")[0]) < OLDEST_SETUPTOOLS:
        fail(f"setuptools ≥ {OLDEST_SETUPTOOLS} is needed, got {setuptools.__version__}: pip install -U setuptools")
    minor = torch_minor(torch.__version__)
    if minor < OLDEST_TORCH:
        fail(f"torch ≥ {OLDEST_TORCH[0]}.{OLDEST_TORCH[1]} is needed, got {torch.__version__}: pip install -U torch")
    use_cuda, reason = decide_cuda(
        os.environ.get("AUTOML_EXT_CUDA", "auto"),
        nvcc_release(CUDA_HOME),
        torch.version.cuda,
        any(ROOT.glob("csrc/*/*.cu")),
    )
    version = re.search(r'"(.+)"', (ROOT / "automl_ext/_version.py").read_text()).group(1)
    setuptools.setup(
        version=version,
        install_requires=[
            # Compiled code runs under the minor version it was compiled against, and no other.
            f"torch>={minor[0]}.{minor[1]},<{minor[0]}.{minor[1] + 1}",
            "numpy>=1.24",
            "gymnasium>=1.0",
            "tyro>=0.9",
            "rich>=13",
        ],
        ext_modules=[extension()],
        cmdclass={"build_ext": Build},
    )
