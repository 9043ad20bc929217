"""Implement `make cuda-build`: compile the CUDA kernels, without a GPU, and check their use of resources.

The build is in build/cuda: a virtual environment with a CUDA build of torch, and a copy of the sources. The checkout's
own build is not changed. Checks, in this order:

- nvcc prints no warnings.
- All kernels are compiled. None spills, has a stack frame (backward kernels may) or uses more than 128 registers.
  build/cuda/resources.json contains the table.
- The inner loops of the machine code keep the rules of sass.py, and no kernel has 5 % more instructions than recorded
  in benchmarks/results/cuda_sass.json. --record writes that file.
- The package can be imported without a GPU, and each op with a CPU kernel has a CUDA kernel.
- The tests of how torch calls the ops (TESTED below) pass on the CPU with that torch.

What the CPU kernels compute, and how fast, is the matter of `make test`: here they are compiled without optimization,
for the portable instruction set only.

Standard library only.
"""

import argparse
import dataclasses
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import cuda_toolkit
import ptxas
import sass

ROOT = pathlib.Path(__file__).resolve().parents[1]
HOME = ROOT / "build/cuda"
SOURCE = HOME / "src"
PYTHON = HOME / "venv/bin/python"
ARCHS = {"9.0": "sm_90"}
# Only checked, for two dtypes, which takes half the time: float16 is compiled like bfloat16.
MORE_ARCHS = ("sm_80", "sm_100", "sm_120")
MORE_DTYPES = "-DKERNEL_COMPILES(dtype)=((dtype)==kFloat32||(dtype)==kBFloat16)"
RECORDED = ROOT / "benchmarks/results/cuda_sass.json"
DISASSEMBLER = ["nvidia-cuda-cuobjdump>=13.2", "nvidia-cuda-nvdisasm>=13.2"]  # older ones lack sm_120
TORCH = "torch==2.11.0"  # the default package index has a build for CUDA 13.0
# Tests of how torch calls the ops: gradients, torch.compile, vmap, forward mode, autocast, devices. What the kernels
# compute does not depend on the version of torch, and `make test` covers it.
TESTED = (
    "cuda",
    *(f"ops/test_{name}.py" for name in ("backward_ops", "conformance", "devices")),
    "ops/gumbel/test_gumbel_torch.py",
)
NUMERICAL = ("at_most_twice", "same_bits")
TEST_PACKAGES = ("pytest", "pytest-xdist", "hypothesis", "scikit-learn")
NVCC_FLAGS = "-Werror all-warnings -Xptxas -v -Xcompiler -O0"
TO_BUILD = [TORCH, "setuptools>=77", "wheel", "ninja", "numpy"]

IMPORT_CHECK = """
import sys, torch, automl_ext
info = automl_ext.build_info()
if torch.cuda.is_available() or info["cuda"] != torch.version.cuda:
    sys.exit(f"make cuda-build: expected a build for CUDA {torch.version.cuda} and no visible GPU, got {info}")
has, names = torch._C._dispatch_has_kernel_for_dispatch_key, torch._C._dispatch_get_all_op_names()
ours = sorted(name for name in names if name.startswith("automl_ext::") and has(name, "CPU"))
# On a GPU, these go through PyTorch's own ops.
on_cpu = ("gather_windows", "entmax15_attention", "mlp", "gru_cell", "policy_act", "policy_gradient_step", "td_step")
of_cpu = [name for name in ours if name.removeprefix("automl_ext::").lstrip("_").startswith(on_cpu)]
lacking = [name for name in ours if not has(name, "CUDA") and name not in of_cpu]
if lacking or not ours:
    sys.exit(f"make cuda-build: ops without a CUDA kernel: {', '.join(lacking)}")
print(f"imports without a GPU; {len(ours)} ops have CUDA kernels for {info['cuda_archs']}")
"""


def run(*command, **kwargs):
    subprocess.run([str(word) for word in command], check=True, **kwargs)


def make_environment():
    if not PYTHON.exists():
        run(sys.executable, "-m", "venv", HOME / "venv")


def install(requirements):
    """Install requirements with pip, except those that the environment's list of installed requirements contains.

    Without byte code, of which the build and the tests use a fraction.
    """
    stamp = HOME / "venv/installed.txt"
    have = stamp.read_text().splitlines() if stamp.exists() else []
    wanted = [requirement for requirement in requirements if requirement not in have]
    if wanted:
        print(f"installing {' '.join(wanted)}", flush=True)
        run(PYTHON, "-m", "pip", "install", "--quiet", "--no-compile", *wanted)
        stamp.write_text("\n".join([*have, *wanted]) + "\n")


def export_sources():
    """Copy the files that git tracks or does not ignore to build/cuda/src.

    Unchanged files keep their modification time, so that ninja does not compile them again.
    """
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    output = subprocess.run(listed, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    files = [name for name in output.split("\0") if name and (ROOT / name).is_file()]
    record = HOME / "src.txt"
    for name in set(record.read_text().splitlines() if record.exists() else []) - set(files):
        (SOURCE / name).unlink(missing_ok=True)
    for name in files:
        target = SOURCE / name
        if not target.exists() or target.read_bytes() != (ROOT / name).read_bytes():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, target)
    record.write_text("\n".join(files))


def choose_compiler(asked, torch_cuda):
    """Return the folder of the CUDA toolkit; install the compiler from PyPI if requested or if there is no other.

    Args:
        asked: "system", "pypi" or None.
    """
    homes = cuda_toolkit.system_homes()
    if asked == "pypi" or (asked is None and cuda_toolkit.missing_packages(torch_cuda, homes)):
        install(cuda_toolkit.compiler_packages(torch_cuda))
        site = "import sysconfig; print(sysconfig.get_path('purelib'))"
        homes = [pathlib.Path(output(site)) / f"nvidia/cu{cuda_toolkit.major(torch_cuda)}"]
    home, release = cuda_toolkit.find(torch_cuda, homes)
    if home is None:
        sys.exit(f"make cuda-build: no nvcc found; {cuda_toolkit.mend(torch_cuda)}")
    print(f"nvcc {release} in {home}", flush=True)
    return home


def output(code):
    return subprocess.run([PYTHON, "-c", code], check=True, capture_output=True, text=True).stdout.strip()


def environment(home):
    """Return the environment of the build: only this compiler, warnings as errors, verbose output of ptxas."""
    unset = ("CUDA_PATH", "PYTHONPATH", "AUTOML_EXT_BACKEND", "AUTOML_EXT_CPU")
    return {
        **{name: value for name, value in os.environ.items() if name not in unset},
        "PATH": os.pathsep.join([str(PYTHON.parent), os.environ["PATH"]]),
        "CUDA_HOME": str(home),
        "CUDA_VISIBLE_DEVICES": "",
        "AUTOML_EXT_CUDA": "1",
        "TORCH_CUDA_ARCH_LIST": ";".join(ARCHS),
        "NVCC_APPEND_FLAGS": NVCC_FLAGS,
        "AUTOML_EXT_CXXFLAGS": "-O0 -DAUTOML_EXT_PORTABLE",
    }


def build(env):
    """Build in place in the copy and return the output. Recompile all kernels, so that ptxas reports each of them."""
    for compiled in SOURCE.glob("build/**/*.cu.o"):
        compiled.unlink()
    log = HOME / "build.log"
    print(f"building (log: {log.relative_to(ROOT)})", flush=True)
    with open(log, "w") as file:
        command = [PYTHON, "setup.py", "build_ext", "--inplace"]
        code = subprocess.run(
            command, cwd=SOURCE, env=env, stdout=file, stderr=subprocess.STDOUT, check=False
        ).returncode
    text = log.read_text(errors="replace")
    if code:
        sys.exit(f"{text[-20000:]}\nmake cuda-build: the build failed; full output: {log.relative_to(ROOT)}")
    return text


def compile_more(home, env):
    """Compile the kernels for MORE_ARCHS, two files at a time, into build/cuda/more, and return the output."""
    more = HOME / "more"
    shutil.rmtree(more, ignore_errors=True)
    more.mkdir()

    def compiled(job):
        source, arch = job
        target = more / f"{source.stem}.{arch}.cubin"
        command = [
            f"{home}/bin/nvcc",
            "-O3",
            "-std=c++17",
            f"-arch={arch}",
            "-cubin",
            "-o",
            target,
            MORE_DTYPES,
            source,
        ]
        process = subprocess.run(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if process.returncode:
            sys.exit(f"{process.stdout[-5000:]}\nmake cuda-build: {source.name} for {arch}: nvcc failed")
        return process.stdout

    jobs = [(source, arch) for source in sorted(SOURCE.glob("csrc/*/*.cu")) for arch in MORE_ARCHS]
    with ThreadPoolExecutor(2) as pool:
        return "".join(pool.map(compiled, jobs))


def check_resources(log):
    """Print the resource usage of the kernels, write it to resources.json, and exit if a kernel violates a rule."""
    archs = [*ARCHS.values(), *MORE_ARCHS]
    functions = ptxas.parse(log)
    sources = [path.read_text() for path in SOURCE.glob("csrc/*/*_kernels.cuh")]
    expected = [name for source in sources for name in ptxas.kernel_names(source)]
    rows = ptxas.table(functions, archs)
    print(ptxas.table_text(rows, archs))
    content = {"archs": archs, "table": rows, "functions": [dataclasses.asdict(function) for function in functions]}
    (HOME / "resources.json").write_text(json.dumps(content, indent=1) + "\n")
    broken = ptxas.problems(functions, expected, archs)
    if broken:
        sys.exit("\n".join(["make cuda-build: kernels violate the rules:", *broken]))
    print(f"{len(functions)} compiled functions: no spills, stack frames in backward kernels only, ≤ 128 registers")


def disassembler():
    """Return the path of cuobjdump, which needs nvdisasm beside it; they come from PyPI."""
    install(DISASSEMBLER)
    site = pathlib.Path(output("import sysconfig; print(sysconfig.get_path('purelib'))"))
    return next(site.glob("nvidia/cu*/bin/cuobjdump"))


def check_machine_code(record):
    """Check the inner loops of the compiled kernels and their numbers of instructions; exit if a rule is violated."""
    tool, objects = disassembler(), [*SOURCE.glob("build/**/*.cu.o"), *HOME.glob("more/*.cubin")]
    with ThreadPoolExecutor(2) as pool:
        kernels = [k for text in pool.map(lambda path: sass.disassemble(tool, path), objects) for k in sass.parse(text)]
    found = sass.figures(kernels)
    recorded = json.loads(RECORDED.read_text())["kernels"] if RECORDED.exists() else {}
    broken = sass.problems(kernels)
    broken += [
        f"{arch}: no machine code" for arch in (*ARCHS.values(), *MORE_ARCHS) if arch not in {k.arch for k in kernels}
    ]
    if not record:
        broken += [f"{line}; --record accepts it" for line in sass.rises(found, recorded)]
    if broken:
        sys.exit("\n".join(["make cuda-build: machine code violates the rules of tools/sass.py:", *broken]))
    if record:
        RECORDED.write_text(sass.text(found, sass.instances(kernels)))
    print(f"{len(kernels)} kernels: inner loops access global memory in packs, without FP64 where the type needs none")


def test_requirements(requires):
    """Convert the requires.txt of an egg-info to pip's: the core's without torch, and TEST_PACKAGES of the extras."""
    requirements, extra, marker = [], "", ""
    for line in requires.splitlines():
        if section := re.fullmatch(r"\[([^:\]]*):?(.*)\]", line):
            extra, marker = section.groups()
            continue
        name = re.split(r"[^\w-]", line)[0]
        if name and name != "torch" and (not extra or name in TEST_PACKAGES):
            requirements.append(f"{line}; {marker}" if marker else line)
    return list(dict.fromkeys(requirements))


def run_tests(env):
    run(PYTHON, "setup.py", "--quiet", "egg_info", cwd=SOURCE, env={**env, "AUTOML_EXT_CUDA": "0"})
    install(test_requirements((SOURCE / "automl_ext.egg-info/requires.txt").read_text()))
    workers = ["-n", os.cpu_count() or 1, "--dist", "worksteal"]
    command = [
        PYTHON,
        "-m",
        "pytest",
        "-q",
        "-m",
        "not slow and not cuda",
        "-k",
        f"not ({' or '.join(NUMERICAL)})",
        *workers,
        *(f"python_tests/{name}" for name in TESTED),
    ]
    run(*command, cwd=SOURCE, env={**env, "OMP_NUM_THREADS": "1"})


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--compiler", choices=["system", "pypi"], help="default: the system's if there is one")
    parser.add_argument("--no-tests", action="store_true", help="skip the Python tests")
    parser.add_argument("--record", action="store_true", help=f"write {RECORDED.relative_to(ROOT)}")
    arguments = parser.parse_args()
    make_environment()
    install(TO_BUILD)
    home = choose_compiler(arguments.compiler, output("import torch; print(torch.version.cuda or '')"))
    env = environment(home)
    export_sources()
    check_resources(build(env) + compile_more(home, env))
    check_machine_code(arguments.record)
    env["PYTHONPATH"] = str(SOURCE)
    run(PYTHON, "-c", IMPORT_CHECK, cwd=HOME, env=env)
    if not arguments.no_tests:
        run_tests(env)


if __name__ == "__main__":
    try:
        main()
    except subprocess.CalledProcessError as error:
        words = [str(word) for word in error.cmd[:4] if "\n" not in str(word)]
        sys.exit(f"make cuda-build: {' '.join(words)}: exit status {error.returncode}")
