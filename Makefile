# make demo    segment a simulated tissue and see how close the cells come
# make test    run the tests
# make docs    build the documentation in docs/_build/html
# make lint    check style and format
#
# All share .venv; what is installed stays until pyproject.toml or constraints.txt changes.
# Another interpreter: make PYTHON=python3.12 test. CPU builds of torch: see constraints.txt.

PYTHON ?= python3
PYTEST_FLAGS ?= -n auto --maxprocesses 4
VENV := .venv

.PHONY: demo test docs lint clean

demo: $(VENV)/.installed-demo
	$(VENV)/bin/sslcst demo

# One thread a worker: pytest-xdist already fills the cores.
test: $(VENV)/.installed-test
	OMP_NUM_THREADS=1 $(VENV)/bin/pytest $(PYTEST_FLAGS)

docs: $(VENV)/.installed-docs
	$(VENV)/bin/python -W ignore -m sphinx -q -W --keep-going -b html docs docs/_build/html

lint: $(VENV)/.installed-dev
	$(VENV)/bin/ruff check
	$(VENV)/bin/ruff format --check

clean:
	rm -rf $(VENV)

$(VENV)/.installed-%: pyproject.toml constraints.txt | $(VENV)/bin/pip
	$(VENV)/bin/pip install -c constraints.txt -e ".[$*]"
	touch $@

$(VENV)/bin/pip:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "sslcst needs Python 3.11 or later: make PYTHON=...")'
	$(PYTHON) -m venv $(VENV)
