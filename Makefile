# `make train` and `make test` set everything up on a fresh machine; PYTHON names the interpreter.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: train test check format

train: .venv/installed
	$(BIN)/truesweep train

test: .venv/installed
	$(BIN)/pytest -n 2 --dist worksteal

check: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: .venv/installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@
