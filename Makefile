# `make train` and `make test` set everything up on a fresh machine; PYTHON names the interpreter.
PYTHON ?= python3
BIN := .venv/bin
NUMBERS = $(BIN)/pytest -q -n 2 --dist loadscope -m "numbers and not slow"

# Tests that lean on other packages, and start no processes: for other versions of these.
LEAN := tests/config tests/metrics tests/models tests/optim tests/callbacks/test_validation.py \
	tests/data/test_module.py tests/tasks/test_step.py tests/sweeps/test_planning.py \
	tests/sweeps/test_study.py tests/commands/test_plugins.py tests/record/test_provenance.py
# Of these, what Hydra and OmegaConf can break: only config, compat and commands/plugins.py call
# them. The rest of LEAN calls neither, or composes the shipped configuration once more.
HYDRA := tests/config tests/sweeps/test_planning.py tests/commands/test_plugins.py \
	tests/test_compat.py
OTHER_VERSIONS = -n 2 --dist worksteal -m "not slow"

.PHONY: train test test-architectures test-isa test-lowest test-newest test-prerelease check format

train: .venv/installed
	$(BIN)/truesweep train

test: .venv/installed
	$(BIN)/pytest -n 2 --dist worksteal

# Every architecture of transformers for each task, which takes hours; docs/architectures.md.
test-architectures: .venv/installed
	$(BIN)/python -m benchmarks.architectures --thorough --again

# What compares numbers, as on processors without AVX, and without AVX-512.
test-isa: .venv/installed
	ATEN_CPU_CAPABILITY=default ONEDNN_MAX_CPU_ISA=SSE41 MKL_ENABLE_INSTRUCTIONS=SSE4_2 $(NUMBERS)
	ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 MKL_ENABLE_INSTRUCTIONS=AVX2 $(NUMBERS)

# With the lowest versions that pyproject.toml admits, the newest, or Hydra's release candidates,
# laid over those of .venv; torch stays.
test-lowest test-newest test-prerelease: test-%: .venv/installed
	$(BIN)/python .ci/overlay.py $* .venv-$*
	.venv-$*/bin/python -m pytest $(OTHER_VERSIONS) $(if $(filter prerelease,$*),$(HYDRA),$(LEAN))

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
