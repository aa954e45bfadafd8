# Every target sets up its own environment in .venv first; that is redone when the requirements change.
PYTHON ?= python3
VENV ?= .venv
# Test processes. torch computes on one thread in each of them.
WORKERS ?= 2
PYTEST_ARGS ?=

BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
INSTALLED_DOCS := $(VENV)/.installed-docs

.PHONY: demo test check bench docs

demo: $(INSTALLED)
	$(BIN)/python utils/demo.py

test: $(INSTALLED)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) $(PYTEST_ARGS)

check: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python utils/check_repo.py

bench: $(INSTALLED)
	$(BIN)/python utils/benchmarks/run.py

# build/docs/site/index.html
docs: $(INSTALLED_DOCS)
	HF_HUB_OFFLINE=1 $(BIN)/python utils/build_docs.py

$(INSTALLED): setup.py pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt -e '.[test]'
	touch $@

$(INSTALLED_DOCS): $(INSTALLED)
	$(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt -e '.[docs]'
	touch $@
