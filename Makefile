# `make demo` runs the main job, `make test` passes the tests; both install what they need first.
PYTHON := .venv/bin/python
export MPLBACKEND := Agg

.PHONY: demo test test-all explore lint clean

demo: .venv/installed
	$(PYTHON) scripts/validate_probe.py --agent maze-bimpala-compact --out runs/demo --overwrite

test: .venv/installed
	$(PYTHON) -m pytest -q -n 2

# The wheel under every Python that is here: make test-all PATHS=tests/rlbilinear
test-all:
	sh scripts/test_all.sh $(PATHS)

# Property tests with fresh seeds and more examples: make explore MINUTES=60 PATHS=tests/rlbilinear
MINUTES := 10
PATHS := tests
explore: .venv/installed
	$(PYTHON) tests/explore.py --minutes $(MINUTES) $(PATHS)

lint: .venv/installed
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .
	sh scripts/type_check.sh $(PYTHON)

.venv/installed: pyproject.toml constraints.txt scripts/install.sh
	sh scripts/install.sh

clean:
	rm -rf .venv
