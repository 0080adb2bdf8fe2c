# Two commands for users; each makes the environment that it needs and is quick when it is there already.
#
#     make demo       simulate a data set, find its motions, show what was found     (demo-output/)
#     make test       check the code style and run all tests
#
# PYTHON is the interpreter that the environment in .venv is made from: make test PYTHON=python3.12

PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
CONSTRAINTS := solvar_engine/constraints.txt
INSTALL := $(BIN)/python -m pip install --quiet --constraint $(CONSTRAINTS)

.PHONY: demo test

demo: $(VENV)/engine.stamp
	$(BIN)/python docs/demo.py --output demo-output

test: $(VENV)/test.stamp
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -p tests.forbid_skips

# Stamps say when an environment was last brought up to date with what defines it.
$(VENV)/engine.stamp: setup.py $(CONSTRAINTS) | $(VENV)/created.stamp
	$(INSTALL) --editable ".[engine]"
	touch $@

$(VENV)/test.stamp: setup.py $(CONSTRAINTS) | $(VENV)/created.stamp
	$(INSTALL) --editable ".[engine,test]"
	touch $@

$(VENV)/created.stamp:
	@command -v $(PYTHON) >/dev/null || { echo "make: $(PYTHON) not found; name another one: make PYTHON=python3.12" >&2; exit 1; }
	$(PYTHON) -m venv --clear $(VENV)
	touch $@
