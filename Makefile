# Each target works on a fresh clone: it makes .venv and installs into it.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: install test test-slow lint demo film clean

install: .venv/installed

.venv/installed: setup.py pyproject.toml
	$(PYTHON) -m venv .venv
	# An old pip can search for hours where a new one needs seconds.
	$(BIN)/python -m pip install --quiet --disable-pip-version-check \
		--upgrade pip
	$(BIN)/python -m pip install --quiet --disable-pip-version-check \
		--editable '.[test]'
	touch $@

test: install
	$(BIN)/python -m pytest -n 2

test-slow: install
	$(BIN)/python -m pytest -n 2 -m slow

lint: install
	$(BIN)/ruff check . && $(BIN)/ruff format --check .

demo: install
	$(BIN)/python -m vivi_keras.training.demo --output=.cache/demo

film: install
	$(BIN)/python -m vivi_keras.training.film --output=.cache/film

clean:
	rm -rf .venv .cache build *.egg-info
