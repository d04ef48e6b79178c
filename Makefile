# Everything a newcomer needs: `make demo` shows it, `make test` proves it, `make check` is for every save.
#
# The tools live in .venv. Its stamp is newer than pyproject.toml and scripts/get_etcd.py when it is
# complete; then no target needs a network.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.stamp
PIP    := $(BIN)/python -m pip --disable-pip-version-check

.DEFAULT_GOAL := help
.PHONY: help setup demo test swarm quotas reasons check sim bench fix clean

help:  ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-7s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(STAMP)  ## build .venv: the package, its tools and an etcd server

demo: $(STAMP)  ## a cell of its own, a slice placed, run and given back
	@$(BIN)/python scripts/demo.py

test: $(STAMP)  ## every test
	@echo "==> tests"
	@$(BIN)/python scripts/run_tests.py

swarm: $(STAMP)  ## kills and stops at random under 2,000 slices; SLICES=, KILLS= and SEED= change it
	@SLICES=$${SLICES:-2000} $(BIN)/python -m pytest -q -s \
	  tests/faults/test_swarm.py tests/faults/test_server_dies.py tests/faults/test_cluster.py

quotas: $(STAMP)  ## four schedulers and two tenants at their limits, 10,000 commits; COMMITS= changes it
	@FLOWOS_QUOTA_COMMITS=$${COMMITS:-10000} FLOWOS_QUOTA_ON_ETCD=$${COMMITS:-10000} \
	  $(BIN)/python -m pytest -q tests/runtime/test_quota_races.py tests/faults/test_quota_races_on_etcd.py

reasons: $(STAMP)  ## every reason to wait against trying everything, in 10,000 small cells; CELLS= changes it
	@REASONS_CELLS=$${CELLS:-10000} $(BIN)/python -m pytest -q \
	  tests/property/test_reasons_true.py tests/property/test_help_true.py

check: $(STAMP)  ## format, lint, types, import contracts and unit tests: seconds
	@echo "==> ruff"
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/ruff check --quiet .
	@echo "==> mypy"
	@$(BIN)/mypy --no-error-summary
	@echo "==> imports"
	@$(BIN)/lint-imports --no-cache > $(VENV)/imports.log 2>&1 || { cat $(VENV)/imports.log; exit 1; }
	@echo "==> unit tests"
	@$(BIN)/python -m pytest -q tests/unit

# SEED=n replays one run, SEEDS=a-b runs several.
sim: $(STAMP)  ## a whole cell in virtual time against a store that fails: make sim SEED=7
	@$(BIN)/python scripts/sim.py $(if $(SEED),--seed $(SEED),$(if $(SEEDS),--seeds $(SEEDS)))

bench: $(STAMP)  ## every benchmark in its quick form, and which figures miss their goals; ONLY=omega picks
	@$(BIN)/python -c 'import matplotlib, networkit, ortools, rustworkx' 2>/dev/null \
	  || $(PIP) install -qq --editable '.[dev,metrics,bench,rivals]'
	@$(BIN)/python scripts/bench.py $(if $(ONLY),--only $(ONLY))

fix: $(STAMP)  ## let ruff format and repair what it can
	@$(BIN)/ruff format --quiet .
	@$(BIN)/ruff check --fix --quiet .

clean:  ## remove what was built, .venv too
	@rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The environment. A step that is already done costs nothing, so a change of pyproject.toml takes
# seconds, and no network if it asks for nothing new.

$(STAMP): pyproject.toml scripts/get_etcd.py
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' \
	  || { echo "$(PYTHON) is not Python 3.11 to 3.13: name one by make PYTHON=..."; exit 1; }
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(MAKE) --no-print-directory $(VENV)
	@echo "==> Flow OS and its tools"
	@# First without a network: enough when only settings have changed.
	@$(PIP) install -qq --no-index --no-build-isolation --editable '.[dev,metrics]' 2>/dev/null \
	  || $(PIP) install -qq --editable '.[dev,metrics]'
	@# Some of the tests run MPI programs and OpenCL kernels; all else works without.
	@missing=; command -v mpirun >/dev/null || missing=openmpi-bin; \
	  ls /etc/OpenCL/vendors/*.icd >/dev/null 2>&1 || missing="$$missing pocl-opencl-icd"; \
	  if [ -n "$$missing" ]; then \
	    echo "==> MPI and OpenCL"; \
	    if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	      echo "    installing $$missing"; \
	      apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq -y \
	        install --no-install-recommends $$missing >/dev/null; \
	    else false; fi || echo "    missing: install $$missing for the tests of MPI and OpenCL"; \
	  fi
	@echo "==> etcd"
	@# 3 = none could be had. The memory store works without; the next make tries again.
	@$(BIN)/python scripts/get_etcd.py --dest $(VENV)/etcd --venv-python $(BIN)/python; got=$$?; \
	  if [ $$got -eq 0 ]; then touch $@; elif [ $$got -ne 3 ]; then exit $$got; fi

.PHONY: $(VENV)
$(VENV):
	@echo "==> Python environment in $(VENV)"
	@# Debian and Ubuntu split venv off their Python.
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  package=$$($(PYTHON) -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])'); \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    echo "    installing $$package"; \
	    apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq -y install $$package >/dev/null; \
	  else echo "    venv is missing: install $$package, then run make again"; exit 1; fi; }
	@$(PYTHON) -m venv --clear $(VENV)
