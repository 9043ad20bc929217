"""Install a wheel beside torch, check it, and record how long that took.

    python tools/install_matrix.py dist/automl_ext-….whl ENVIRONMENT …

Each environment is the Python of a virtual environment that has torch and not this package. The wheel is installed with
what it needs from the package index, `automl-ext doctor` and the tests of two ops run, and a row is written to
benchmarks/results/install_matrix.json, which replaces a row of the same Python and torch.
"""

import json
import pathlib
import resource
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks/results/install_matrix.json"
TESTS = ["python_tests/ops/test_conformance.py", "-k", "entmax15 or gae"]
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


def row(wheel, python):
    install = timed(python, "-m", "pip", "install", "--quiet", wheel)
    first = timed(python, "-c", FIRST_OP)
    again = timed(python, "-c", FIRST_OP)
    output(python.with_name("automl-ext"), "doctor")
    output(python, "-m", "pip", "install", "--quiet", "pytest", "hypothesis")
    tests = output(python.with_name("pytest"), "-q", "-p", "no:cacheprovider", *TESTS).splitlines()[-1]
    names = ("install", "first_op", "second_start")
    times = {
        name: {"seconds": round(wall, 1), "cpu_seconds": round(cpu, 1)}
        for name, (wall, cpu) in zip(names, (install, first, again), strict=True)
    }
    facts = json.loads(output(python, "-I", "-c", FACTS))
    return {**facts, **times, "tests": tests.split(" in ")[0].strip("= ")}


def main(argv):
    wheel, *environments = (pathlib.Path(argument).absolute() for argument in argv)
    rows = json.loads(RESULTS.read_text())["rows"] if RESULTS.exists() else []
    for environment in environments:
        new = row(wheel, environment / "bin/python")
        print(new, flush=True)
        same = [new["python"], new["torch"]]
        rows = [old for old in rows if [old["python"], old["torch"]] != same] + [new]
        rows.sort(
            key=lambda r: [[int(part) for part in r[key].split("+")[0].split(".")] for key in ("torch", "python")]
        )
        facts = {"wheel": wheel.name, "bytes": wheel.stat().st_size, "rows": rows}
        RESULTS.write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
