# `make demo` runs the main job, `make test` passes the tests, `make docs` builds the site in
# build/site; each installs what it needs first.
PYTHON := .venv/bin/python
export MPLBACKEND := Agg

.PHONY: demo test explore docs notebooks lint clean

demo: .venv/installed
	$(PYTHON) scripts/validate_probe.py --agent maze-bimpala-compact --out runs/demo --overwrite

test: .venv/installed
	$(PYTHON) -m pytest -q -n 2

# Property tests with fresh seeds and more examples: make explore MINUTES=60 PATHS=tests/rlbilinear
MINUTES := 10
PATHS := tests
explore: .venv/installed
	$(PYTHON) tests/explore.py --minutes $(MINUTES) $(PATHS)

lint: .venv/installed
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .
	sh scripts/type_check.sh $(PYTHON)

# The documentation, with warnings as errors; after the installation it needs no network.
docs: .venv/installed-docs
	$(PYTHON) scripts/build_docs.py

# Run the notebooks again and keep their outputs.
notebooks: .venv/installed-docs
	$(PYTHON) scripts/run_notebooks.py

.venv/installed: pyproject.toml constraints.txt scripts/install.sh
	sh scripts/install.sh

.venv/installed-docs: .venv/installed
	$(PYTHON) -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[docs]"
	touch $@

clean:
	rm -rf .venv
