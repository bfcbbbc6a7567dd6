# Tidegate. `make demo` shows it, `make test` tests it; each makes its own virtual environment in .venv first.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin

.PHONY: build
build:   ## compile the Cython extensions in place, with the active python
	$(PYTHON) -c "import setuptools; setuptools.setup()" -q build_ext --inplace -j2

include rules/rules.mk
