# make demo    segment a simulated tissue and see how close the cells come
# make test    run the tests
# make test-cellpose3    run those of nuclei and tables with Cellpose 3, in .venv-cellpose3
# make docs    build the documentation in docs/_build/html
# make lint    check style and format
#
# All others share .venv; what is installed stays until pyproject.toml or the constraints change.
# Another interpreter: make PYTHON=python3.12 test. CPU builds of torch: see constraints.txt.

PYTHON ?= python3
PYTEST_FLAGS ?= -n auto --maxprocesses 4
VENV := .venv
CONSTRAINTS := constraints.txt

.PHONY: demo test test-cellpose3 docs lint clean

demo: $(VENV)/.installed-demo
	$(VENV)/bin/sslcst demo

# One thread a worker: pytest-xdist already fills the cores.
test: $(VENV)/.installed-test
	OMP_NUM_THREADS=1 $(VENV)/bin/pytest $(PYTEST_FLAGS)

# The paper's nucleus model wants an older numpy: the tests that meet either.
test-cellpose3:
	$(MAKE) test VENV=.venv-cellpose3 CONSTRAINTS=constraints-cellpose3.txt \
	  PYTEST_FLAGS="$(PYTEST_FLAGS) tests/core/nuclei tests/tl/test_segment.py tests/run/test_tiles.py tests/sdata/test_store.py"

docs: $(VENV)/.installed-docs
	$(VENV)/bin/python -W ignore -m sphinx -q -W --keep-going -b html docs docs/_build/html

lint: $(VENV)/.installed-dev
	$(VENV)/bin/ruff check
	$(VENV)/bin/ruff format --check

clean:
	rm -rf .venv .venv-cellpose3

$(VENV)/.installed-%: pyproject.toml $(CONSTRAINTS) constraints-shared.txt | $(VENV)/bin/pip
	$(VENV)/bin/pip install -c $(CONSTRAINTS) -e ".[$*]"
	touch $@

$(VENV)/bin/pip:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "sslcst needs Python 3.11 or later: make PYTHON=...")'
	$(PYTHON) -m venv $(VENV)
