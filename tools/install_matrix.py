"""Install a wheel beside torch, check it, and record how long that took.

    python tools/install_matrix.py dist/automl_ext-….whl ENVIRONMENT …
    python tools/install_matrix.py dist/automl_ext-….whl --idle ENVIRONMENT

Each environment is a virtual environment that has torch and not this package. The wheel is installed with what it needs
from the package index, `automl-ext doctor` and the tests of two ops run, and a row is written to
benchmarks/results/install_matrix.json, which replaces a row of the same Python and torch. --idle, on an idle machine,
records times only.
"""

import json
import pathlib
import resource
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks/results/install_matrix.json"
TESTS = ["python_tests/ops/test_conformance.py", "-k", "(entmax15 or gae) and (gradcheck or vmap_equals)"]
FIRST_OP = "import torch, automl_ext; automl_ext.entmax15(torch.zeros(2, 3, requires_grad=True)).sum().backward()"
FACTS = """
import json, platform, torch, automl_ext
print(json.dumps({"python": platform.python_version(), "torch": torch.__version__,
                  "gradients": automl_ext.build_info()["autograd"]}))
"""


def timed(*command):
    """Run a command; return its wall time and CPU time in seconds."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    begin, before = time.perf_counter(), used.ru_utime + used.ru_stime
    subprocess.run(command, cwd=ROOT.parent, check=True)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.perf_counter() - begin, used.ru_utime + used.ru_stime - before


def output(*command):
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))} failed:\n{done.stdout}{done.stderr}")
    return done.stdout


def times(wheel, python):
    """Install the wheel and call an op. Return facts about the environment, and the times."""
    install = timed(python, "-m", "pip", "install", "--quiet", wheel)
    first = timed(python, "-c", FIRST_OP)
    alone = timed(python, "-m", "pip", "install", "--quiet", "--force-reinstall", "--no-deps", wheel)
    found = {
        name: {"seconds": round(wall, 1), "cpu_seconds": round(cpu, 1)}
        for name, (wall, cpu) in {"install": install, "first_op": first, "install_alone": alone}.items()
    }
    return {**json.loads(output(python, "-I", "-c", FACTS)), **found}


def tests(python):
    """Run doctor and tests; return what pytest counts."""
    output(python.with_name("automl-ext"), "doctor")
    output(python, "-m", "pip", "install", "--quiet", "pytest", "hypothesis")
    last = output(python.with_name("pytest"), "-q", "-p", "no:cacheprovider", *TESTS).splitlines()[-1]
    return last.split(" in ")[0].strip("= ")


def main(argv):
    idle = "--idle" in argv
    wheel, *environments = (pathlib.Path(argument).absolute() for argument in argv if argument != "--idle")
    recorded = json.loads(RESULTS.read_text()) if RESULTS.exists() else {"rows": []}
    for environment in environments:
        python = environment / "bin/python"
        row = times(wheel, python)
        if idle:
            recorded["idle"] = row
        else:
            row["tests"] = tests(python)
            rows = [old for old in recorded["rows"] if any(old[key] != row[key] for key in ("python", "torch"))]
            recorded["rows"] = sorted([*rows, row], key=lambda row: [numbers(row[key]) for key in ("torch", "python")])
        print(row, flush=True)
        recorded.update(wheel=wheel.name, megabytes=wheel.stat().st_size / 1e6)
        RESULTS.write_text(json.dumps(recorded, indent=1) + "\n")


def numbers(version):
    return [int(part) for part in version.split("+")[0].split(".")]


if __name__ == "__main__":
    main(sys.argv[1:])
