# `make demo` and `make test` do all the set-up on a fresh machine.
VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin

.PHONY: demo test test-all check bench clean

demo: $(VENV)/.installed
	$(BIN)/probewatch demo --out demo

test: $(VENV)/.installed
	$(BIN)/pytest -n auto

test-all: $(VENV)/.installed
	$(BIN)/pytest -n auto -m ''

check: $(VENV)/.installed
	$(BIN)/ruff check src tests bench
	$(BIN)/ruff format --check src tests bench
	$(BIN)/mypy
	$(BIN)/pytest tests/test_architecture.py

bench: $(VENV)/.installed
	for one in ingest features score stream train; do $(BIN)/python bench/$$one.py || exit 1; done

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[train,corpus,dev]'
	touch $@

clean:
	rm -rf $(VENV) demo .pytest_cache .mypy_cache .ruff_cache .hypothesis
