# Every target sets up its own environment in .venv first; that is redone when the requirements change.
PYTHON ?= python3
VENV ?= .venv
# Test processes. torch computes on one thread in each of them.
WORKERS ?= 2
PYTEST_ARGS ?=

BIN := $(VENV)/bin
# What is imported is compiled then; all of it takes as long as the installation.
PIP := -m pip install --disable-pip-version-check --no-compile
INSTALLED := $(VENV)/.installed
INSTALLED_DOCS := $(VENV)/.installed-docs
OLDEST := $(VENV)/oldest
INSTALLED_OLDEST := $(OLDEST)/.installed
ECOSYSTEM := $(VENV)/ecosystem
INSTALLED_ECOSYSTEM := $(ECOSYSTEM)/.installed

.PHONY: demo test test-slow test-oldest test-ecosystem check fuzz bench docs

demo: $(INSTALLED)
	$(BIN)/python utils/demo/demo.py

# What a contributor runs before every commit.
test: $(INSTALLED)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist loadgroup -m "not slow" $(PYTEST_ARGS)

# The rest.
test-slow: $(INSTALLED)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist loadgroup -m slow $(PYTEST_ARGS)

# The tests that other versions of Transformers are most likely to fail, beside the oldest one that setup.py admits. Of
# PE Video, whose classes there differ most, all but what is numbers alone.
OLDEST_TESTS := config or golden and eager or save_and_load or hidden_states or backend_can_be_changed or checkpointing \
	or pe_video and not (golden or Citizen or forward or backward or compiles or off_size or order_matters)
test-oldest: $(INSTALLED_OLDEST)
	PYTHONPATH=$(OLDEST) OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist loadgroup -m "not slow" $(PYTEST_ARGS) \
		tests/*/test_modeling_*.py tests/*/test_video_processing_*.py \
		-k "$(OLDEST_TESTS)"

# The tools of others that docs/integrations.md shows, in an environment that has them on top of the tests' own one.
test-ecosystem: $(INSTALLED_ECOSYSTEM)
	OMP_NUM_THREADS=1 $(ECOSYSTEM)/bin/python -m pytest -n $(WORKERS) --dist loadgroup -m ecosystem $(PYTEST_ARGS) tests/ecosystem

check: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python utils/checks/check_repo.py

# Damaged video files, read against a plain decode.
FUZZ_COUNT ?= 200
fuzz: $(INSTALLED)
	$(BIN)/python utils/checks/fuzz_video.py --count $(FUZZ_COUNT)

bench: $(INSTALLED)
	$(BIN)/python utils/benchmarks/run.py

# build/docs/site/index.html
docs: $(INSTALLED_DOCS)
	HF_HUB_OFFLINE=1 $(BIN)/python utils/docs/build_docs.py

$(INSTALLED): setup.py pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python $(PIP) -c constraints.txt -e '.[test]'
	touch $@

$(INSTALLED_OLDEST): $(INSTALLED)
	$(BIN)/python $(PIP) --no-deps --upgrade --target $(OLDEST) transformers==5.19.0
	touch $@

SITE_PACKAGES := -c 'import sysconfig; print(sysconfig.get_path("purelib"))'

$(INSTALLED_ECOSYSTEM): $(INSTALLED)
	$(BIN)/python -m venv $(ECOSYSTEM)
	echo "import site; site.addsitedir('$$($(BIN)/python $(SITE_PACKAGES))')" > "$$($(ECOSYSTEM)/bin/python $(SITE_PACKAGES))/tests.pth"
	$(ECOSYSTEM)/bin/python $(PIP) -c constraints.txt -e '.[ecosystem]'
	$(BIN)/python $(PIP) -c constraints.txt --upgrade --target $(ECOSYSTEM)/triton triton
	touch $@

$(INSTALLED_DOCS): $(INSTALLED)
	$(BIN)/python $(PIP) -c constraints.txt -e '.[docs]'
	touch $@
