# Two commands for users; each makes the environments that it needs and is quick when they are there already.
#
#     make demo       find the motions of a simulated molecule in a Scipion project     (.scipion/, demo-output/)
#     make test       check the code style and run all tests                            (.venv/, .scipion/, test-output/)
#
# PYTHON is the interpreter of the tests' environment: make test PYTHON=python3.12. Scipion's own is chosen by
# scripts/install_scipion.sh, the engine's by the plugin's installer.

PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
CONSTRAINTS := solvar_engine/constraints.txt
REQUIREMENTS := solvar_engine/requirements.txt
INSTALL := $(BIN)/python -m pip install --quiet --constraint $(CONSTRAINTS)

.PHONY: demo test

demo:
	scripts/install_scipion.sh
	scripts/scipion python docs/demo.py --output demo-output

test: $(VENV)/test.stamp
	$(BIN)/ruff check .
	$(BIN)/mypy
	OPENBLAS_NUM_THREADS=1 $(BIN)/python -m pytest -p tests.forbid_skips --numprocesses auto --maxprocesses 8 --dist worksteal
	scripts/install_scipion.sh
	scripts/test_plugin.sh

# Stamps say when an environment was last brought up to date with what defines it.
$(VENV)/test.stamp: setup.py $(REQUIREMENTS) $(CONSTRAINTS) | $(VENV)/created.stamp
	$(INSTALL) --editable ".[engine,test]"
	touch $@

$(VENV)/created.stamp:
	@command -v $(PYTHON) >/dev/null || { echo "make: $(PYTHON) not found; name another one: make PYTHON=python3.12" >&2; exit 1; }
	$(PYTHON) -m venv --clear $(VENV)
	touch $@
