PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RUNNABLE := $(VENV)/.runnable
INSTALLED := $(VENV)/.installed

# The tests mostly wait, so more of them than there are cores run side by side.
TEST_PROCESSES ?= 4

.DEFAULT_GOAL := help
.PHONY: help run unit test check mutants chaos fuzz docs bench clean system-packages

help: ## list the commands
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(RUNNABLE): pyproject.toml gateway/__init__.py
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Python 3.11 or newer is needed; this is " + sys.version.split()[0] + ". Name another one: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --editable .
	@touch $@

$(INSTALLED): $(RUNNABLE)
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[test,check]'
	@touch $@

run: $(RUNNABLE) ## install into .venv and start `gateway dev`
	@$(BIN)/gateway dev

system-packages:
	@deploy/test-packages

unit: $(INSTALLED) ## install into .venv, then run the tests that need no server
	$(BIN)/pytest tests/unit $(ARGS)

test: $(INSTALLED) system-packages ## install into .venv, then run every test
	$(BIN)/pytest --numprocesses $(TEST_PROCESSES) $(ARGS)

check: $(INSTALLED) ## lint, formatting, types, import directions
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	PYTHONPATH=. $(BIN)/lint-imports --no-logo

mutants: $(INSTALLED) system-packages ## change the gateway in thousands of ways and count what no test notices (hours)
	$(BIN)/python -m tools.mutants $(ARGS)

chaos: $(INSTALLED) system-packages ## break one thing after the other and count what each client lost
	$(BIN)/python -m chaos $(ARGS)

fuzz: $(INSTALLED) system-packages ## play 250,000 generated cases against workers, nginx and decoders
	@$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[fuzz]' || echo "no atheris here: nothing is guided by coverage"
	$(BIN)/python -m fuzz $(ARGS)

docs: $(INSTALLED) ## write the generated parts of the documentation
	$(BIN)/python -m tools.settings_table

bench: $(RUNNABLE) ## measure beside peers and the kernel's limit; writes docs/benchmarks.md
	$(BIN)/python -m benchmarks $(or $(ARGS),--write)

clean: ## remove what the other commands made
	rm -rf $(VENV) mutants .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis .fuzz build dist
	find . -name __pycache__ -prune -exec rm -rf {} +
