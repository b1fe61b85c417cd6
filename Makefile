# The commands for people and for CI. PYTHON is any Python >= 3.11.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
unexport PYTHONDONTWRITEBYTECODE  # many tests start a new Python: without compiled modules each takes 0.2 s more
BUILD := pyproject.toml constraints.txt hatch_build.py src/regnet/pixels/kernel/resize.c

.PHONY: demo test quick chromium lint format docs wheel bench nightly clean

demo: $(VENV)/core.stamp  ## classify the sample photos with the bundled model, offline
	$(BIN)/regnet demo

test: $(VENV)/test.stamp chromium  ## install everything the tests need and run them
	$(BIN)/python -m pytest -n 2 --dist loadfile -q

quick: $(VENV)/test.stamp  ## the tests that need neither training, Ray, a browser nor a long corpus: a minute
	$(BIN)/python -m pytest -n 2 --dist worksteal -q --quick

chromium:  ## install the browser for the tests of the page, where it is missing and that may be done
	@{ command -v chromium && command -v chromedriver; } >/dev/null || \
	  { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && apt-get -qq update && \
	    apt-get -qq install -y --no-install-recommends chromium chromium-driver; } || \
	  echo "no Chromium (packages chromium, chromium-driver): the tests of the page are skipped"

lint: $(VENV)/test.stamp  ## style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/test.stamp  ## rewrite to the style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(VENV)/test.stamp  ## the reference of commands (docs/reference.md) and of Python (site/regnet.html)
	$(BIN)/python tools/make_reference.py
	$(BIN)/python tools/make_api.py

wheel: $(VENV)/build.stamp  ## the wheel that is released, in dist/: needs a C compiler, its users do not
	$(BIN)/python tools/make_wheel.py dist

bench: $(VENV)/test.stamp  ## the bars of speed on two models, about 5 minutes; ends in one JSON line
	$(BIN)/python bench/bars.py

nightly: $(VENV)/test.stamp  ## hostile photos and requests, and kills of every kind of run: half an hour
	$(BIN)/python bench/fuzz_photos.py
	$(BIN)/python bench/fuzz_serve.py
	$(BIN)/python bench/fuzz_serve.py --siege 8
	$(BIN)/python bench/kills.py --most 40

clean:  ## remove the environment
	rm -rf $(VENV)

$(VENV)/python.stamp:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "regnet needs Python 3.11 or newer: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv $(VENV)
	touch $@

$(VENV)/core.stamp: $(VENV)/python.stamp $(BUILD)
	$(PIP) -e .
	touch $@

$(VENV)/build.stamp: $(VENV)/python.stamp $(BUILD)
	$(PIP) -e '.[build]'
	touch $@ $(VENV)/core.stamp

$(VENV)/test.stamp: $(VENV)/python.stamp $(BUILD)
	$(PIP) -e '.[test]'
	touch $@ $(VENV)/core.stamp
