#!/bin/sh
# `make cuda-test`: builds for the GPU of this machine, then runs the tests that need a GPU, and the benchmark.
# AUTOML_EXT_PYTHON=/path/to/python builds in place with that interpreter and installs nothing. Its environment needs
# torch, numpy, pytest, pybind11 and ninja. By default the .venv of the checkout is used, as by `make`.
set -eu
cd "$(dirname "$0")/.."
stop() {
  echo "make cuda-test: $1" >&2
  exit 1
}

# Ask torch if the interpreter exists, because some containers with a GPU have no nvidia-smi; else ask nvidia-smi.
python=${AUTOML_EXT_PYTHON:-.venv/bin/python}
if [ -x "$(command -v "$python")" ]; then
  "$python" -c "import sys, torch
if not torch.cuda.is_available(): sys.exit(f'make cuda-test: no GPU found by torch {torch.__version__} of $python')"
else
  [ -z "${AUTOML_EXT_PYTHON:-}" ] || stop "AUTOML_EXT_PYTHON: not an executable: $python"
  nvidia-smi -L > /dev/null 2>&1 || stop "no GPU found (nvidia-smi -L lists none)"
fi

if [ -n "${AUTOML_EXT_PYTHON:-}" ]; then
  mkdir -p build
  PATH="$(dirname "$(command -v "$python")"):$PATH"  # ninja is next to the interpreter
  AUTOML_EXT_CUDA=1 "$python" setup.py --quiet build_ext --inplace > build/cuda_test.log 2>&1 || {
    tail -n 50 build/cuda_test.log
    stop "the build failed; full output: build/cuda_test.log"
  }
else
  "${MAKE:-make}" --no-print-directory setup
fi
"$python" -c "import automl_ext, sys; i = automl_ext.build_info(); print(i); sys.exit(not i.get('cuda'))" ||
  stop "the library was built without CUDA, see above"
"$python" -m pytest -m cuda --durations 15 python_tests
"$python" -c "from automl_ext.bench.command import BenchCommand, bench
raise SystemExit(bench(BenchCommand(device='cuda', seconds=0.15, compile=False)))"
