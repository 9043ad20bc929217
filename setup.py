"""Build the compiled libraries of automl_ext: CPU kernels always, CUDA kernels if possible.

AUTOML_EXT_CUDA=auto|0|1 selects CUDA kernels. auto: build them if nvcc and a CUDA build of torch with the same major
version are found; the decision is printed. No GPU is needed. Kernels are compiled for the GPUs of this machine, unless
TORCH_CUDA_ARCH_LIST is set. The CPU kernels select their instruction set at run time.

AUTOML_EXT_CXXFLAGS adds flags of the C++ compiler: -O0 -DAUTOML_EXT_PORTABLE compiles in a fifth of the time.
AUTOML_EXT_TORCH_HEADERS=folder: build nothing but the autograd library for the torch whose headers are in the folder.
"""

import contextlib
import copy
import itertools
import logging
import os
import pathlib
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import threading

import setuptools

ROOT = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(ROOT / "tools"))
import cuda_toolkit  # noqa: E402

OLDEST_TORCH = (2, 10)
INSTRUCTION_SETS = ("default", "avx2", "avx512")
OLDEST_SETUPTOOLS = 77  # the oldest that reads the license field of pyproject.toml
INSTALL = "Debian, Ubuntu: apt install g++ python3-dev; Fedora: dnf install gcc-c++ python3-devel"


def fail(message):
    sys.exit(f"automl_ext: {message}")


remarks = logging.getLogger("torch.utils.cpp_extension")
remarks.setLevel(logging.ERROR)  # it reports its own choice of CUDA_HOME, but cuda_toolkit chooses
try:
    import torch
    from torch.utils import cpp_extension
    from torch.utils.cpp_extension import BuildExtension, CppExtension, CUDAExtension
except ModuleNotFoundError as error:
    fail(f"building needs {error.name}: run `pip install torch ninja`, then `pip install --no-build-isolation .`")
remarks.setLevel(logging.NOTSET)


def torch_minor(version):
    return tuple(int(part) for part in version.split(".")[:2])


def minor_of_headers(folder):
    """Return the minor version of the torch whose headers (its folder ``include``) are in the folder."""
    text = (pathlib.Path(folder) / "torch/headeronly/version.h").read_text()
    return tuple(int(re.search(rf"define TORCH_VERSION_{part} (\d+)", text)[1]) for part in ("MAJOR", "MINOR"))


def decide_cuda(asked, nvcc, torch_cuda, has_sources):
    """Return whether to build for CUDA, and the reason. ``asked``: the value of AUTOML_EXT_CUDA.

    Raises:
        SystemExit: CUDA is required but cannot be built; the message is one line.
    """
    if asked not in ("auto", "0", "1"):
        fail(f"AUTOML_EXT_CUDA: expected auto, 0 or 1, got {asked!r}")
    if asked == "0":
        return False, os.environ.get(
            "AUTOML_EXT_NO_CUDA_WHY", "AUTOML_EXT_CUDA=0"
        )  # the Makefile's reason, if it made the decision
    if not has_sources:
        missing = "this version has no CUDA kernels"
    elif torch_cuda is None:
        missing = "torch is a CPU build; install a CUDA build of torch"
    elif nvcc is None:
        missing = f"torch has CUDA {torch_cuda} and no nvcc was found; {cuda_toolkit.mend(torch_cuda)}"
    elif nvcc.split(".")[0] != torch_cuda.split(".")[0]:
        missing = f"nvcc is {nvcc} and torch has CUDA {torch_cuda}; {cuda_toolkit.mend(torch_cuda)}"
    else:
        return True, f"nvcc {nvcc} and torch's CUDA {torch_cuda} agree"
    if asked == "1":
        fail(f"AUTOML_EXT_CUDA=1, but {missing}")
    return False, missing


def choose_archs(home):
    """Return the GPU architectures: TORCH_CUDA_ARCH_LIST, or this machine's GPUs, or the defaults."""
    gpus, known = [], cuda_toolkit.nvcc_archs(home)
    if torch.cuda.is_available():
        gpus = [torch.cuda.get_device_capability(i) for i in range(torch.cuda.device_count())]
        newest = max(int(re.sub(r"\D", "", arch)) for arch in torch.cuda.get_arch_list())
        known = [(a, b) for a, b in known if 10 * a + b <= newest]  # torch has no code for newer ones
    return cuda_toolkit.arch_list(os.environ.get("TORCH_CUDA_ARCH_LIST"), gpus, known)


def compiler_version():
    """Return the first line of the C++ compiler's --version; exit with one line if there is no compiler."""
    compiler = os.environ.get("CXX", "c++").split()[0]
    path = shutil.which(compiler)  # the one that torch calls
    if path is None:
        fail(f"no C++ compiler ({compiler}) found: install one or set CXX; {INSTALL}")
    output = subprocess.run([path, "--version"], capture_output=True, text=True, check=False).stdout
    return output.splitlines()[0] if output else path


def limit_jobs():
    """Limit the number of parallel jobs by memory: compiling a file with torch's headers takes up to 2 GB."""
    if "MAX_JOBS" not in os.environ and hasattr(os, "sysconf"):
        gigabytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
        os.environ["MAX_JOBS"] = str(max(1, min(os.cpu_count() or 1, int(gigabytes / 2))))


def short_line(line):
    """Shorten a line of ninja about a compiled file, whose flags are those of every other file, to the file's name."""
    found = re.match(r"(\[\d+/\d+\]) .* -c (\S+)", line)
    return f"{found[1]} {os.path.relpath(found[2], ROOT)}\n" if found else line


@contextlib.contextmanager
def short_lines():
    """Pass the standard output of child processes through ``short_line``."""
    kept, (reading, writing) = os.dup(1), os.pipe()

    def copy():
        with open(reading, errors="replace") as lines, open(kept, "w", closefd=False) as out:
            for line in lines:
                print(short_line(line), end="", file=out, flush=True)

    thread = threading.Thread(target=copy)
    thread.start()
    sys.stdout.flush()
    os.dup2(writing, 1)
    os.close(writing)
    try:
        yield
    finally:
        sys.stdout.flush()
        os.dup2(kept, 1)  # closes the last end of the pipe that is written to
        thread.join()
        os.close(kept)


class Build(BuildExtension):
    """Build the libraries and write the facts of the build beside it, for automl_ext._native."""

    def finalize_options(self):
        """Keep the object files in the checkout, so that the next build compiles only what has changed.

        For an editable installation setuptools would choose a temporary folder.
        """
        super().finalize_options()
        name = f"temp.{sysconfig.get_platform()}-{sys.implementation.cache_tag}"
        if other_headers:  # the same sources, but other object files
            name += "-torch-{}.{}".format(*minor_of_headers(other_headers))
        self.build_temp = str(ROOT / "build" / name)
        self.parallel = 2  # both libraries at the same time

    def run(self):
        compiler = compiler_version()
        decision = f"{'yes' if use_cuda else 'no'}: {reason}"
        toolkit = f" in {cuda_home}, for {archs}" if use_cuda else ""
        print(f"automl_ext: CUDA: {decision}{toolkit}; torch {torch.__version__}; {compiler}")
        limit_jobs()
        super().run()
        if other_headers:
            return
        facts = {
            "TORCH_VERSION": torch.__version__,
            "CUDA_VERSION": torch.version.cuda if use_cuda else None,
            "CUDA_ARCHS": archs,
            "CUDA_DECISION": decision,
            "COMPILER": compiler,
        }
        lines = [f"{name}: str | None = {value!r}\n" for name, value in facts.items()]
        target = pathlib.Path(self.get_ext_fullpath("automl_ext._kernels")).parent / "_build.py"
        target.write_text('"""Written by setup.py."""\n\n' + "".join(lines))
        print(f"automl_ext: built for the CPU and CUDA {archs}" if use_cuda else f"automl_ext: no CUDA: {reason}")

    def build_extension(self, extension):
        """Build one library in a folder of its own, where ninja keeps its files."""
        build = copy.copy(self)
        build.build_temp = str(pathlib.Path(self.build_temp, extension.name.rpartition(".")[2]))
        super(Build, build).build_extension(extension)

    def build_extensions(self):
        """Give .cu and .cpp files of the same name different object files, which setuptools does not."""
        names = self.compiler.object_filenames

        def object_filenames(sources, *args, **kwargs):
            pairs = zip(sources, map(os.path.splitext, names(sources, *args, **kwargs)), strict=True)
            return [stem + (".cu" if str(source).endswith(".cu") else "") + ending for source, (stem, ending) in pairs]

        self.compiler.object_filenames = object_filenames
        with short_lines():
            super().build_extensions()


class WithoutPyproject(setuptools.Distribution):
    """A distribution that does not read pyproject.toml, whose license field an older setuptools refuses."""

    def parse_config_files(self, *args, **kwargs):
        pass


def sources(*patterns):
    """Return the files under csrc to compile, relative to the root."""
    paths = {path for pattern in patterns for path in ROOT.glob(f"csrc/{pattern}")}
    return sorted(str(path.relative_to(ROOT)) for path in paths)


def kernel_units():
    """Write a file for each family of kernels and instruction set to build/units; return their paths."""
    template = (ROOT / "csrc/instruction_sets/unit.cpp.in").read_text()
    families = re.findall(r"^#include FAMILY_FILE\((\w+)\)", (ROOT / "csrc/families.inc").read_text(), re.MULTILINE)
    paths = []
    for family, name in itertools.product(families, INSTRUCTION_SETS):
        text = template
        for key, value in {"csrc": ROOT / "csrc", "family": family, "set": name}.items():
            text = text.replace(f"@{key}@", str(value))
        path = ROOT / f"build/units/{family}_{name}.cpp"
        if not path.exists() or path.read_text() != text:  # a file with a new date would be compiled again
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        paths.append(str(path.relative_to(ROOT)))
    return paths


def kernel_sources(cuda):
    """Return the files of ``_kernels``. CUDA files are csrc/*/*_cuda.cpp and *.cu."""
    patterns = ["cpu.cpp", "common/*.cpp", "instruction_sets/*.cpp"]
    return [*kernel_units(), *sources(*patterns, *(["*/*_cuda.cpp", "*/*.cu"] if cuda else []))]


def autograd_sources():
    """Return the one file of ``_autograd_<minor>``, which includes the others."""
    return sources("autograd.cpp")


def use_toolkit(cuda_extension, home, folders):
    """Link the CUDA runtime of the toolkit in ``home`` statically, so that the library works with every minor version.

    ``folders``, those in site-packages/nvidia, have headers that a toolkit may lack (cuSPARSE).
    """
    cuda_extension.include_dirs += [str(folder / "include") for folder in folders]
    places = [pathlib.Path(folder, lib) for folder in (home, *folders) for lib in ("lib64", "lib")]
    runtime = next((path for place in places if (path := place / "libcudart_static.a").exists()), None)
    if runtime is None:
        fail(f"libcudart_static.a is in none of {', '.join(map(str, places))}: install the CUDA toolkit completely")
    cuda_extension.libraries.remove("cudart")
    cuda_extension.extra_link_args += [
        str(runtime),
        "-Wl,--exclude-libs,libcudart_static.a",
        "-ldl",
        "-lpthread",
        "-lrt",
    ]


def autograd_extension(flags):
    """Return the autograd library for this torch, or for the one of AUTOML_EXT_TORCH_HEADERS."""
    minor = minor_of_headers(other_headers) if other_headers else torch_minor(torch.__version__)
    extension = CppExtension(
        "automl_ext._autograd_{}_{}".format(*minor),
        autograd_sources(),
        extra_compile_args={"cxx": flags},
        libraries=["torch_python"],
        py_limited_api=True,
    )
    if other_headers:  # it is linked with the libraries of this torch: their names are the same
        folder = pathlib.Path(other_headers).resolve()
        extension.include_dirs = [str(folder), str(folder / "torch/csrc/api/include")]
        extension.extra_compile_args["cxx"] = [*flags, "-std=c++20"]
    return extension


def extensions():
    """Return the two libraries, or the one that AUTOML_EXT_TORCH_HEADERS asks for.

    ``_kernels``, all ops and their kernels, uses torch's stable interface only: one binary for every torch from 2.10
    on. ``_autograd_<minor>``, the gradients, is for the minor version of this torch. Neither depends on the version of
    Python (``.abi3.so``).
    """
    # No implicit fused multiply-add: the sources call mul_add where one is wanted.
    flags = ["-O3", "-g0", "-fvisibility=hidden", "-ffp-contract=off"]
    flags += shlex.split(os.environ.get("AUTOML_EXT_CXXFLAGS", ""))
    if other_headers:
        return [autograd_extension(flags)]
    stable = [f"-DTORCH_TARGET_VERSION=0x{OLDEST_TORCH[0]:02x}{OLDEST_TORCH[1]:02x}000000000000", "-DTORCH_STABLE_ONLY"]
    if use_cuda:
        os.environ["TORCH_CUDA_ARCH_LIST"] = archs
        cpp_extension.CUDA_HOME = str(cuda_home)
        cxx = [*flags, *stable, "-DUSE_CUDA", "-DAUTOML_EXT_CUDA", f'-DAUTOML_EXT_CUDA_ARCHS="{archs}"']
        kernels = CUDAExtension(
            "automl_ext._kernels",
            kernel_sources(True),
            extra_compile_args={"cxx": cxx, "nvcc": ["-O3"]},
            py_limited_api=True,
        )
        use_toolkit(kernels, cuda_home, cuda_toolkit.wheel_folders(torch.version.cuda))
    else:
        kernels = CppExtension(
            "automl_ext._kernels",
            kernel_sources(False),
            extra_compile_args={"cxx": flags + stable},
            py_limited_api=True,
        )
    kernels.libraries = [name for name in kernels.libraries if name not in ("c10", "torch", "c10_cuda")]
    return [kernels, autograd_extension(flags)]


if __name__ == "__main__":
    if not (pathlib.Path(sysconfig.get_path("include")) / "Python.h").exists():
        fail(f"Python.h is missing: install Python's headers; {INSTALL}")
    # An in-place build reads nothing from pyproject.toml, so that an older setuptools suffices.
    in_place = sys.argv[1:2] == ["build_ext"]
    if not in_place and int(setuptools.__version__.split(".")[0]) < OLDEST_SETUPTOOLS:
        fail(f"setuptools ≥ {OLDEST_SETUPTOOLS} is needed, got {setuptools.__version__}: pip install -U setuptools")
    minor = torch_minor(torch.__version__)
    if minor < OLDEST_TORCH:
        fail(f"torch ≥ {OLDEST_TORCH[0]}.{OLDEST_TORCH[1]} is needed, got {torch.__version__}: pip install -U torch")
    cuda_home = nvcc = archs = None
    other_headers = os.environ.get("AUTOML_EXT_TORCH_HEADERS")
    if torch.version.cuda:
        folders = [*cuda_toolkit.system_homes(), *cuda_toolkit.wheel_folders(torch.version.cuda)]
        cuda_home, nvcc = cuda_toolkit.find(torch.version.cuda, folders)
    use_cuda, reason = decide_cuda(
        os.environ.get("AUTOML_EXT_CUDA", "auto"), nvcc, torch.version.cuda, any(ROOT.glob("csrc/*/*.cu"))
    )
    if use_cuda:
        archs = choose_archs(cuda_home)
    version = re.search(r'"(.+)"', (ROOT / "automl_ext/_version.py").read_text()).group(1)
    setuptools.setup(
        distclass=WithoutPyproject if in_place else setuptools.Distribution,
        version=version,
        install_requires=[
            "torch>={}.{}".format(*OLDEST_TORCH),
            "numpy>=1.24",
            "gymnasium>=1.1",
            "tyro>=1.0.17",
            "rich>=13",
        ],
        ext_modules=extensions(),
        options={"bdist_wheel": {"py_limited_api": "cp310"}},
        cmdclass={"build_ext": Build},
    )
