# `make demo` runs the main job, `make test` passes the tests, `make docs` builds the site in
# build/site; each installs what it needs first.
VENV := .venv/bin/python
export MPLBACKEND := Agg

.PHONY: demo test test-all explore docs notebooks lint clean

demo: .venv/installed
	$(VENV) scripts/validate_probe.py --agent maze-bimpala-compact --out runs/demo --overwrite

test: .venv/installed
	$(VENV) -m pytest -q -n 2

# The wheel under every Python that is here: make test-all FAST=1, or PATHS=tests/rlbilinear
test-all:
	sh scripts/test_all.sh $(PATHS)

# Property tests with fresh seeds and more examples: make explore MINUTES=60 PATHS=tests/rlbilinear
MINUTES := 10
explore: .venv/installed
	$(VENV) tests/explore.py --minutes $(MINUTES) $(or $(PATHS),tests)

lint: .venv/installed
	$(VENV) -m ruff check .
	$(VENV) -m ruff format --check .
	sh scripts/type_check.sh $(VENV)

# The documentation, with warnings as errors; after the installation it needs no network.
docs: .venv/installed-docs
	$(VENV) scripts/build_docs.py

# Run the notebooks again and keep their outputs.
notebooks: .venv/installed-docs
	$(VENV) scripts/run_notebooks.py

.venv/installed: pyproject.toml constraints.txt scripts/install.sh
	sh scripts/install.sh

.venv/installed-docs: .venv/installed
	$(VENV) -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[docs]"
	touch $@

clean:
	rm -rf .venv
