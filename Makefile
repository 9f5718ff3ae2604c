# make demo   sets up and runs the main job on the lab, to runs/demo/report.html
# make test   runs the tests
# make test-long   runs those that train for a minute each to see how good a model becomes
# make docs   builds the documents as a site, with the API reference, to build/docs/index.html
# make test-vllm   runs those that need a real vLLM, on the CPU, in an environment of its own (3.5 GB)
PYTHON ?= python3
BIN := .venv/bin
DEMO_OUT ?= runs/demo
SEED ?= 0
VLLM_ENV ?= .venv-vllm
# One more than processors: tests wait for processes that they start.
TEST_WORKERS ?= $(shell $(PYTHON) -c 'import os; print((os.cpu_count() or 1) + 1)')

.PHONY: setup demo test test-long test-vllm check types docs format results findings clean

setup: .venv/installed

.venv/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("stepcredit needs Python 3.11 or later; name one: make setup PYTHON=python3.11" if sys.version_info < (3, 11) else 0)'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --no-compile -c constraints.txt torch==2.13.0
	$(BIN)/python -m pip install --quiet --no-compile -c constraints.txt -e '.[dev]'
	touch $@

demo: setup
	$(BIN)/stepcredit demo --out $(DEMO_OUT) --seed $(SEED)

test: setup
	OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 $(BIN)/python -m pytest -n $(TEST_WORKERS) --dist worksteal -m "not long"

test-long: setup
	OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 $(BIN)/python -m pytest -m long

test-vllm: setup $(VLLM_ENV)/installed
	OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 STEPCREDIT_VLLM=$(VLLM_ENV) $(BIN)/python -m pytest tests/vllm

$(VLLM_ENV)/installed: scripts/vllm_environment.sh
	scripts/vllm_environment.sh $(VLLM_ENV) $(PYTHON)
	touch $@

check: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports
	$(MAKE) -j 2 types docs
	$(MAKE) test

docs: setup
	HF_HUB_OFFLINE=1 $(BIN)/sphinx-build --fail-on-warning --keep-going --quiet -b html docs build/docs

types: setup
	$(BIN)/mypy

format: setup
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

results: setup
	$(BIN)/python -m stepcredit_study.demo_seeds --out runs/results --publish docs/results/demo

findings: setup
	$(BIN)/python -m stepcredit_study.findings --results docs/results --page docs/findings.md

clean:
	rm -rf runs build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
