# Tidegate. `make demo` shows it, `make test` tests it; both first make what they need: a virtual environment in .venv,
# the compiled extensions, and what scripts/prerequisites installs from the distribution where it may.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
PYTHONS = $(BIN)/python
VERSION = $(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
SOURCES = pyproject.toml $(wildcard edge/*.pyx edge/*/*.pyx edge/*.pxd edge/*/*.pxd gateway/*/*.pyx gateway/*/*.pxd firmware-sim/firmware_sim/*.pyx firmware-sim/firmware_sim/*.pxd)

.PHONY: demo test check bench soak spec coverage interop docs build wheels deb test-arm64 advisories clean help
.DEFAULT_GOAL := help

help:    ## this list
	@grep -hE '^[a-z-]+: .*##|^[a-z-]+:  .*##' $(MAKEFILE_LIST) | sed 's/:.*## */\t/' | expand -t 16

demo: $(VENV)/built  ## simulated devices, rules, upstream, ledger: the whole way in half a minute
	$(BIN)/tidegate demo

test: $(VENV)/built  ## all tests
	sh scripts/prerequisites --tests
	$(BIN)/python -m pytest -q -n auto --dist loadfile

check: $(VENV)/built  ## the quick tests: what to run before a push
	$(BIN)/python -m pytest -q -x -n auto --dist loadfile -m "not slow"

bench: $(VENV)/built  ## each figure beside its baseline, in one run
	sh scripts/prerequisites --tests
	$(BIN)/tidegate bench

soak: $(VENV)/built  ## every promise in full (hours; goes on where it stopped), and docs/reliability.md
	sh scripts/prerequisites --tests
	$(BIN)/python -c "import cosmic_ray" 2>/dev/null || $(BIN)/python -m pip install -qq --disable-pip-version-check "cosmic-ray>=8.4,<9"
	$(BIN)/python tests/soak/soak.py

spec: $(VENV)/built  ## the WebAssembly specification's own tests as hostile modules (needs Go, fetches a package; some minutes)
	$(BIN)/python tests/hostile/spec_run.py

coverage: $(VENV)/built  ## which branches of the log and the receiver no test runs (minutes)
	$(BIN)/python tests/soak/coverage_run.py

interop: $(VENV)/built  ## clients in JavaScript, Go and Java against the listener; with PAHO=FOLDER of eclipse/paho.mqtt.testing its suite, too (2 to 6 minutes)
	sh scripts/prerequisites --tests
	$(BIN)/python tests/mqtt/interop_run.py $(if $(PAHO),--paho $(PAHO))

docs: $(VENV)/built  ## the generated pages
	$(BIN)/python -m gateway.config.reference docs
	$(BIN)/python -m rulec.sql.reference docs

wheels: $(VENV)/installed  ## dist/: sdist and manylinux wheels for aarch64 and x86-64, for each Python of $(PYTHONS)
	$(BIN)/python release/wheels.py $(PYTHONS:%=--python %)

deb: wheels $(VENV)/built  ## dist/: Debian packages for arm64 and amd64, with all that they need but Python
	sh scripts/prerequisites --packages
	$(BIN)/python release/package.py dist/tidegate-$(VERSION)-*.whl

test-arm64: $(VENV)/built  ## as root: the arm64 package of `make deb` installed and at work under emulation (1 to 3 minutes, once 6 more)
	sh scripts/prerequisites --arm64
	$(BIN)/python release/arm64.py dist/tidegate_$(VERSION)_arm64.deb

advisories: $(VENV)/installed  ## what is known against the pinned versions, where osv.dev can be asked
	$(BIN)/python release/advisories.py

build:   ## compile the extensions in place, with $(PYTHON)
	$(PYTHON) -W ignore -c "import setuptools; setuptools.setup()" -q build_ext --inplace

$(VENV)/installed: pyproject.toml
	sh scripts/prerequisites $(PYTHON)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --disable-pip-version-check --upgrade pip setuptools wheel "cython>=3.1,<3.4"
	$(BIN)/python -m pip install -qq --disable-pip-version-check --no-build-isolation -e ".[dev]"
	touch $@

$(VENV)/built: $(VENV)/installed $(SOURCES)
	$(MAKE) -s build PYTHON=$(BIN)/python
	touch $@

clean:   ## forget what was built
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .hypothesis edge/*.c edge/*.so edge/*/*.c edge/*/*.so gateway/*/*.c gateway/*/*.so
	rm -f firmware-sim/firmware_sim/*.c firmware-sim/firmware_sim/*.so

include rules/rules.mk
