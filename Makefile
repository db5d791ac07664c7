# `make train` and `make test` set everything up on a fresh machine; PYTHON names the interpreter.
PYTHON ?= python3
BIN := .venv/bin
NUMBERS = $(BIN)/pytest -q -n 2 --dist loadscope -m "numbers and not slow"

.PHONY: train test test-isa check format

train: .venv/installed
	$(BIN)/truesweep train

test: .venv/installed
	$(BIN)/pytest -n 2 --dist worksteal

# What compares numbers, as on processors without AVX, and without AVX-512.
test-isa: .venv/installed
	ATEN_CPU_CAPABILITY=default ONEDNN_MAX_CPU_ISA=SSE41 MKL_ENABLE_INSTRUCTIONS=SSE4_2 $(NUMBERS)
	ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 MKL_ENABLE_INSTRUCTIONS=AVX2 $(NUMBERS)

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
