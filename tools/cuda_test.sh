#!/bin/sh
# `make cuda-test`: builds for the GPU of this machine, then runs the tests that need a GPU, times from captured graphs, the
# benchmark with its targets, and compute-sanitizer: eight minutes at most.
# AUTOML_EXT_PYTHON=/path/to/python builds in place with that interpreter and installs nothing. Its environment needs
# torch, numpy, pytest and ninja. By default the .venv of the checkout is used, as by `make`.
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

# The parts, each with a time limit and a log. A failing part does not stop the others.
out=build/cuda_test
mkdir -p "$out"
failed=
part() {
  name=$1 seconds=$2
  shift 2
  echo "== $name (at most $seconds s; log: $out/$name.log)"
  if timeout "$seconds" "$@" > "$out/$name.log" 2>&1; then
    tail -n 3 "$out/$name.log"
  else
    echo "failed: $name, exit status $?"
    tail -n 30 "$out/$name.log"
    failed="$failed $name"
  fi
}

part tests 240 "$python" -m pytest -q -m cuda --durations 15 python_tests
part times 30 "$python" tools/cuda_day.py times "$out"
part bench 110 "$python" tools/cuda_day.py bench "$out"
# compute-sanitizer is part of the toolkit, and of the package nvidia-cuda-sanitizer-api. Without torch's cache of memory
# each tensor is an allocation of its own.
sanitizer=$(command -v compute-sanitizer || echo "${CUDA_HOME:-/usr/local/cuda}/bin/compute-sanitizer")
if [ -x "$sanitizer" ]; then
  for tool in memcheck racecheck synccheck initcheck; do
    part "$tool" 25 env PYTORCH_NO_CUDA_MEMORY_CACHING=1 "$sanitizer" --tool "$tool" --error-exitcode 1 \
      --kernel-name kernel_substring=automl_ext "$python" tools/cuda_day.py once
  done
else
  echo "== no compute-sanitizer found: skipped"
fi
[ -z "$failed" ] || stop "failed:$failed; logs: $out"
echo "all parts passed; results: $out/times.json and $out/bench.json"
