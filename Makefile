# Each target works on a fresh clone: it makes .venv and installs into it.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: install test test-slow lint docs lock demo film clean

install: .venv/installed

# The version of PYTHON, or nothing if PYTHON cannot be run.
VERSION = $(shell { $(PYTHON) -c \
	'import sys; print("%d.%d" % sys.version_info[:2])'; } 2>/dev/null)

# The version of the environment's Python, if PYTHON names another one.
OTHER = $(if $(filter file default,$(origin PYTHON)),,$(filter-out $(VERSION),\
	$(shell { $(BIN)/python -c 'import sys; \
	print("%d.%d" % sys.version_info[:2])'; } 2>/dev/null)))

.PHONY: other-python
.venv/installed: setup.py pyproject.toml $(if $(OTHER),other-python)
	$(if $(filter 3.10 3.11 3.12 3.13,$(VERSION)),,$(error PYTHON must be \
		Python 3.10 to 3.13. Got: $(PYTHON), \
		$(or $(VERSION),which does not run)))
	$(if $(OTHER),# .venv has Python $(OTHER) and is made again with $(VERSION).)
	# An old environment would be mixed with the new one.
	rm -rf .venv
	$(PYTHON) -m venv .venv
	# An old pip can search for hours where a new one needs seconds.
	$(BIN)/python -m pip install --quiet --disable-pip-version-check \
		--upgrade pip
	# Without this option pip compiles every file, which takes long.
	$(BIN)/python -m pip install --quiet --disable-pip-version-check \
		--no-compile --editable '.[test]'
	touch $@

test: install
	$(BIN)/python -m pytest -n 2 --dist worksteal

test-slow: install
	$(BIN)/python -m pytest -n 2 --dist worksteal -m slow

lint: install
	$(BIN)/ruff check . && $(BIN)/ruff format --check .
	# import-linter needs Python 3.11. It does not see training and export in an
	# editable install, so the package is built first.
	rm -rf build/lint
	$(BIN)/python setup.py --quiet build_py --build-lib build/lint
	cd build/lint && ../../$(BIN)/lint-imports --no-cache \
		../../pyproject.toml

# The website, in build/site. A broken link is an error. Needs no network.
docs: install
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

# Writes the newest versions that setup.py allows, for every Python version.
lock: install
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv pip compile --quiet --upgrade --universal --no-annotate \
		--python-version 3.10 --extra test --extra jax --extra maps \
		--custom-compile-command "make lock" setup.py \
		--output-file requirements-lock.txt

demo: install
	$(BIN)/python -m vivi_keras.training.demo --output=.cache/demo

film: install
	$(BIN)/python -m vivi_keras.training.film --output=.cache/film

clean:
	rm -rf .venv .cache build *.egg-info
