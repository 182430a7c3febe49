# make quickstart   set up and build a small dataset from real packages
# make test         set up and run the tests
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
export OMP_NUM_THREADS := 1
export TOKENIZERS_PARALLELISM := false

TORCH ?= torch==2.13.0

.PHONY: setup torch quickstart test test-slow test-long lint format bench clean

setup: $(VENV)/.ready

$(VENV)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "stackbuild needs Python 3.11 or later; set PYTHON=")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

torch: $(VENV)/.torch

# For the tests of the trainer; nothing else imports it.
$(VENV)/.torch: $(VENV)/.ready
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt '$(TORCH)'
	touch $@

quickstart: setup
	$(BIN)/stackbuild build pipelines/quickstart.toml --output out/quickstart

test: torch
	$(BIN)/python -m pytest -n 2 --dist worksteal -m 'not slow'

test-slow: torch
	$(BIN)/python -m pytest -n 2 --dist loadfile -m 'slow and not long'

test-long: torch
	$(BIN)/python -m pytest -n 2 --dist loadfile -m long

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Each prints its table; those that need a corpus get the one that is built in out/corpus once.
bench: torch
	test -e out/corpus/corpus/manifest.json || $(BIN)/python -m benchmarks.corpus out/corpus
	$(BIN)/python -m benchmarks.pipeline out/corpus/corpus/*.parquet
	$(BIN)/python -m benchmarks.passthrough out/corpus/corpus/*.parquet
	$(BIN)/python -m benchmarks.executor out/corpus/corpus/*.parquet $(if $(shell PATH=$$PATH:/usr/sbin command -v slurmctld),--slurm)
	$(BIN)/python -m benchmarks.near_dedup out/corpus/corpus-small/*.parquet
	$(BIN)/python -m benchmarks.languages out/corpus/corpus-small/*.parquet
	$(BIN)/python -m benchmarks.quality out/corpus/corpus-small/*.parquet
	$(BIN)/python -m benchmarks.classifier out/corpus/corpus-small/*.parquet
	$(BIN)/python -m benchmarks.tokens out/corpus/corpus-small/*.parquet
	$(BIN)/python -m benchmarks.packing
	$(BIN)/python -m benchmarks.fim out/corpus/corpus-small/*.parquet
	-$(BIN)/python -m benchmarks.trainer
	$(BIN)/python -m benchmarks.pii_accuracy --input out/corpus/corpus-small/*.parquet
	$(BIN)/python -m benchmarks.pii_parse out/corpus/corpus-small/*.parquet
	$(BIN)/python -m benchmarks.git_histories out/histories
	$(BIN)/python -m benchmarks.swh_walk --repositories out/histories --forks 200 --partitions 4
	failed=0; $(BIN)/python -m benchmarks.pii --input out/corpus/corpus-small/*.parquet || failed=1; \
	for name in encodings git_ingest licenses startup swh_convert swhid; do $(BIN)/python -m benchmarks.$$name || failed=1; done; exit $$failed

clean:
	rm -rf $(VENV) out .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
