# Everything goes into .venv; a second `make install` takes no time.
#   make demo                 install, bring the data, run the demonstration into demo_out/
#   make test | lint | bench  what the names say
#   make test-lerobot         lerobot in an environment of its own, and the tests that need it
#   make simulators           Meta-World and gym-pusht into .venv too; tests that need them then run
#   make plugins              list the installed plugins and run their tests alone
#   make install TORCH_INDEX="--index-url https://download.pytorch.org/whl/cpu"   a smaller torch

PYTHON ?= $(firstword $(foreach name,python3.11 python3.12 python3.13 python3,\
  $(shell $(name) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $(name))))
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
EXTRAS := dev,eval
TORCH_INDEX ?=
DEMO_OUT ?= demo_out
BENCH_OUT ?= bench_out
PLUGINS := $(patsubst %/pyproject.toml,./%,$(wildcard plugins/*/pyproject.toml))

LEROBOT := plugins/vla/tests/lerobot/environment
LEROBOT_VENV := .venv-lerobot
LEROBOT_STAMP := $(LEROBOT_VENV)/.installed

DATA_PACKAGE := dataset-fashion-mnist
DATA := /usr/share/datasets/fashion-mnist
DATA_FILES := $(addprefix $(DATA)/,train-images-idx3-ubyte.gz train-labels-idx1-ubyte.gz \
  t10k-images-idx3-ubyte.gz t10k-labels-idx1-ubyte.gz)

# Several threads on a busy small machine are up to a hundred times slower than one.
TEST_THREADS := OMP_NUM_THREADS=1
PYTEST_OPTIONS ?=
DECODING_TESTS := tests/model tests/generation tests/diffusion tests/tokens
REST_TESTS := $(filter-out $(DECODING_TESTS) tests/conftest.py tests/__pycache__,$(wildcard tests/*)) \
  $(wildcard plugins/*/tests)

.DEFAULT_GOAL := help
.PHONY: help install data demo test test-decoding test-rest test-lerobot simulators plugins lint bench clean distclean

help:
	@sed -n 's/^#   //p' Makefile

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt $(wildcard plugins/*/pyproject.toml)
	@if [ -z "$(PYTHON)" ]; then echo "make install needs Python 3.11 or newer on the PATH (or PYTHON=/path/to/python)" >&2; exit 1; fi
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || { \
	  echo "could not make $(VENV); on Debian and Ubuntu: apt-get install python3-venv" >&2; rm -rf $(VENV); exit 1; }
	$(BIN)/python -m pip install --quiet $(TORCH_INDEX) --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[$(EXTRAS)]'
	$(if $(PLUGINS),$(BIN)/python -m pip install --quiet --constraint constraints.txt --no-build-isolation \
	  $(addprefix --editable ,$(PLUGINS)))
	@touch $@

data:
	@for file in $(DATA_FILES); do test -s $$file || missing=1; done; \
	if [ -z "$$missing" ]; then echo "data: Fashion-MNIST is in $(DATA)"; exit 0; fi; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  apt-get install -y --no-install-recommends $(DATA_PACKAGE) \
	  || { apt-get update && apt-get install -y --no-install-recommends $(DATA_PACKAGE); } || exit 1; \
	  for file in $(DATA_FILES); do test -s $$file || { echo "data: $$file is still missing" >&2; exit 1; }; done; \
	else \
	  echo "data: Fashion-MNIST is missing. On Debian or Ubuntu run" >&2; \
	  echo "    sudo apt-get install $(DATA_PACKAGE)" >&2; \
	  echo "elsewhere put these files, from github.com/zalandoresearch/fashion-mnist, in place:" >&2; \
	  printf '    %s\n' $(DATA_FILES) >&2; \
	  exit 1; \
	fi

demo: install data
	$(BIN)/unidiff demo --out $(DEMO_OUT)

# Two halves side by side, of one thread each: they take about as long as each other.
test: install data
	$(MAKE) --jobs=2 --keep-going test-decoding test-rest

test-decoding:
	$(TEST_THREADS) $(BIN)/python -m pytest -q $(PYTEST_OPTIONS) $(DECODING_TESTS)

test-rest:
	$(TEST_THREADS) $(BIN)/python -m pytest -q $(PYTEST_OPTIONS) $(REST_TESTS)

# Sees the packages of $(VENV) through a .pth file; what lerobot needs besides is pinned and comes
# from the package index, without dependencies: lerobot's own pins exclude UniDiff's.
test-lerobot: $(LEROBOT_STAMP)
	$(TEST_THREADS) $(LEROBOT_VENV)/bin/python -m pytest -q plugins/vla/tests/lerobot

$(LEROBOT_STAMP): $(STAMP) $(wildcard $(LEROBOT)/*) plugins/vla/lerobot_policy_unidiff/pyproject.toml
	test -x $(LEROBOT_VENV)/bin/python || $(BIN)/python -m venv $(LEROBOT_VENV)
	packages=$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))') && \
	  own=$$($(LEROBOT_VENV)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))') && \
	  echo "import site; site.addsitedir('$$packages')" >$$own/unidiff_packages.pth && \
	  cp $(LEROBOT)/older_lerobot.py $$own/ && echo "import older_lerobot" >$$own/older_lerobot.pth
	$(LEROBOT_VENV)/bin/python -m pip install --quiet --no-deps --requirement $(LEROBOT)/requirements.txt
	$(LEROBOT_VENV)/bin/python -m pip install --quiet --no-deps --no-build-isolation \
	  --editable plugins/vla/lerobot_policy_unidiff
	@touch $@

simulators: install
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --no-build-isolation \
	  --editable 'plugins/vla[metaworld,pusht]'

plugins: install data
	$(BIN)/unidiff plugins --json
	$(TEST_THREADS) $(BIN)/python -m pytest -q $(addsuffix /tests,$(PLUGINS))

lint: install
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

bench: install data
	$(TEST_THREADS) $(BIN)/unidiff eval bundled --json
	$(BIN)/unidiff bench decode --json --out $(BENCH_OUT)
	$(BIN)/unidiff bench memory --json --out $(BENCH_OUT)

clean:
	rm -rf build dist *.egg-info $(DEMO_OUT) $(BENCH_OUT) .pytest_cache .ruff_cache .mypy_cache
	find . -name __pycache__ -not -path './$(VENV)/*' -not -path './$(LEROBOT_VENV)/*' -prune -exec rm -rf {} +
	rm -f $(STAMP)

distclean: clean
	rm -rf $(VENV) $(LEROBOT_VENV)
