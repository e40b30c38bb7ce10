# make book | test | notebooks | train | bench | lint | env | clean.  Each creates what it needs, from nothing.
#   make book BIN=/path/to/env/bin    use an environment of your own (conda) instead of .venv
#   make test PIN=                    the newest version of everything instead of constraints.txt
#   make train NAME=winnet            train one network, for TUTORIAL_PROFILE; it goes on where it was stopped

PYTHON ?= python3
PIN ?= -c constraints.txt
PROFILE := $(or $(TUTORIAL_PROFILE),cpu)
ifeq ($(origin BIN),undefined)
BIN := .venv/bin
ENV := .venv/.installed
endif

# The book is built again when one of these is newer, or for another profile, or with other data.
SOURCES := _config.yml _toc.yml constraints.txt $(wildcard notebooks/*.ipynb) $(shell find book \
    tutorial_lib -type f ! -path '*/__pycache__/*' ! -path 'book/chapters/*')
BUILT := _build/.$(PROFILE)$(if $(TUTORIAL_DATA_DIR),-data)

# Memory that a chapter has freed is kept for its next array, not handed back to the system and
# fetched again, zeroed: large arrays come and go in every layer. (glibc; elsewhere it does nothing.)
KEEP := MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=8589934592

.PHONY: help env book notebooks test train bench lint clean
help:
	@sed -n '1,4s/^# *//p' Makefile

env: $(ENV)
	@echo "Ready: $(BIN)/python"

.venv/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 10) or sys.exit("Python 3.10 or newer is needed, $(PYTHON) is " + sys.version.split()[0] + ": make PYTHON=python3.11 ...")'
	@echo "== Installing into .venv (once; a few minutes, mostly the download of PyTorch)"
	$(PYTHON) -m venv --clear .venv
	.venv/bin/python -m pip install $(PIN) -e ".[book,test]"
	@touch $@

notebooks: $(ENV)
	@$(BIN)/python book/make_notebooks.py
	@$(BIN)/python book/make_results.py

book: notebooks
	@$(MAKE) --no-print-directory $(BUILT)
	@echo "Open file://$(CURDIR)/_build/html/index.html"

$(BUILT): $(ENV) $(SOURCES)
	@echo "== Building the book: every chapter is run (profile $(PROFILE))"
	@rm -rf _build
	OMP_NUM_THREADS=1 $(KEEP) TUTORIAL_PROFILE=$(PROFILE) TUTORIAL_STATIC=1 \
	    TUTORIAL_REQUIRE_WEIGHTS=1 $(BIN)/jupyter-book build . -W -n --keep-going
	@touch $@

lint: $(ENV)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

# The chapters run with static sliders, as in the book: live widgets can stall the runner of the
# notebooks until its timeout (jupyter/nbclient#312); tests of plots.py cover the live slider.
test: export TUTORIAL_REQUIRE_WEIGHTS = 1
test: $(ENV)
	@echo "== 1/4 lint and format"
	@$(MAKE) --no-print-directory lint
	@echo "== 2/4 the package: tests and the examples of the docstrings"
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n logical --maxprocesses 8 -m "not book"
	@echo "== 3/4 the chapters and the solutions of their exercises (profile smoke)"
	@$(BIN)/python tests/chapters/with_solutions.py build/chapters
	OMP_NUM_THREADS=1 $(KEEP) TUTORIAL_PROFILE=smoke TUTORIAL_STATIC=1 \
	    $(BIN)/python -m pytest -q --nbmake -n 2 build/chapters
	@echo "== 4/4 the pages of the book in a browser without a network"
	@$(MAKE) --no-print-directory book
	$(BIN)/python -m pytest -q -m book tests/book
	@echo "All passed: lint, package, chapters, solutions, pages."

train: $(ENV)
	@$(BIN)/python -m tutorial_lib $(if $(NAME),train $(NAME) --profile $(PROFILE),list)

.venv/.bench: .venv/.installed
	.venv/bin/python -m pip install $(PIN) -e ".[bench]"
	@touch $@

bench: $(if $(ENV),.venv/.bench)
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks

clean:
	rm -rf _build build .pytest_cache .ruff_cache
