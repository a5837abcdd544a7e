# Two commands do it all: `make run` (environment + main job) and `make test`.
PYTHON ?= python3
VENV   ?= .venv
CONFIG ?= digits
SEED   ?= 0
FAULTS ?= 200
export PIP_DISABLE_PIP_VERSION_CHECK = 1
unexport PYTHONDONTWRITEBYTECODE         # tests start many processes: each would compile the project again

# Two worker processes share the tests, in the groups of tests/worker_groups.py.
PYTEST = $(VENV)/bin/python -m pytest -q -n 2 --durations 15

.PHONY: run test test-quick test-slow test-ray test-services chaos lint bench clean

run: $(VENV)/.installed                  ## fit, encode, sample and evaluate on the bundled images
	$(VENV)/bin/python -m pipeline run $(CONFIG)

test: lint test-quick                    ## then the tests of test-slow, test-ray and test-services in one pytest
	$(PYTEST) -m "slow or ray or services"

test-quick: $(VENV)/.installed-test      ## neither Ray nor servers, none above five seconds
	$(PYTEST) -m "not slow and not ray and not services"

test-slow: $(VENV)/.installed-test       ## fits, compilation, whole verbs
	$(PYTEST) -m "slow and not ray and not services"

test-ray: $(VENV)/.installed-test        ## steps and whole runs on a real Ray
	$(PYTEST) -m "ray and not services"

test-services: $(VENV)/.installed-test   ## real PostgreSQL, S3 and MLflow servers, a cluster of two nodes
	$(PYTEST) -m "services"

chaos: $(VENV)/.installed-test           ## random faults, each survived; one alone: SEED=<its seed> FAULTS=1
	$(VENV)/bin/python -m tests.chaos --seed $(SEED) --faults $(FAULTS) --minutes 20 --write

lint: $(VENV)/.installed-test
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

bench: $(VENV)/.installed-test           ## ratios and sums, printed and kept in benchmarks/results
	$(VENV)/bin/python -m benchmarks.sampler
	$(VENV)/bin/python -m benchmarks.fits
	$(VENV)/bin/python -m benchmarks.memory
	$(VENV)/bin/python -m benchmarks.overhead --write
	$(VENV)/bin/python -m benchmarks.encode --write
	$(VENV)/bin/python -m benchmarks.evaluation

$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, this is " + sys.version.split()[0] + ": set PYTHON=python3.x")'
	$(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV): one to five minutes"
	$(VENV)/bin/pip install --quiet --constraint constraints.txt setuptools torch
	$(VENV)/bin/pip install --quiet --constraint constraints.txt --no-build-isolation --editable .
	@touch $@

$(VENV)/.installed-test: $(VENV)/.installed
	$(VENV)/bin/pip install --quiet --constraint constraints.txt --no-build-isolation --editable '.[test]'
	@touch $@

clean:                                   ## remove the environment and every result
	rm -rf $(VENV) runs samples
