# `make` prints the targets. `make serve` and `make test` do everything on a fresh machine.

PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
PROJECT = setup.cfg setup.py pyproject.toml tftpd/dataplane/_native.c

LOCK ?= requirements/ci.txt
OLDEST ?= python3.11
PYTHONS ?= python3.11 python3.12 python3.13 python3.14
QUICK ?= $(addprefix tests/,protocol access storage config origins net server)

# Processes that run tests: three for two processors, since a third of the time is waiting.
JOBS ?= $(shell expr $$(nproc) \* 3 / 2)

# Deprecation warnings are errors: the next Python or Twisted may remove the feature. A test
# that fails may leave sockets open; that warning is shown and hides nothing.
STRICT = -W error -W default::ResourceWarning -W default::pytest.PytestUnraisableExceptionWarning
PARALLEL = -n $(JOBS) --dist loadgroup
PYTEST = $(BIN)/python -m pytest -q $(STRICT)
# Some tests measure real time. One that fails beside the others must pass alone.
FAILED_AGAIN = $(PYTEST) --last-failed --last-failed-no-failures none

# The tests start hundreds of Python processes. Without byte code, which many containers
# disable by this variable, each of them compiles tftpd again (0.3 s).
unexport PYTHONDONTWRITEBYTECODE

# The directory where `make install` puts the program; the units name it.
OPT ?= /opt/tftpd
UNITS ?=
IMAGE ?= tftpd

.DEFAULT_GOAL = help

.PHONY: help
help:  ## Print this list
	@awk -F ':.*## ' '/^[a-z][a-z-]*:.*## / { printf "make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: serve
serve: $(VENV)/.installed  ## Serve srv/tftp on port 6969 of loopback
	$(BIN)/twistd -n --pidfile= tftp --config conf/tftpd.yaml

.PHONY: test
test: $(VENV)/.installed-test  ## Run the tests that every change must pass (4 minutes on 2 processors)
	$(PYTEST) $(PARALLEL) $(TESTS)

.PHONY: lint
lint: extension $(VENV)/.installed-lint  ## Run ruff, mypy, a compiler, and the checks of spelling, names and docstrings
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/codespell
	$(BIN)/zizmor --offline --quiet .github
	$(BIN)/python -m tests.support.style

.PHONY: extension
extension: $(VENV)/.installed  ## Compile the extension; each warning is an error
	$(CC) -std=c11 -D_GNU_SOURCE -O2 -Wall -Wextra -Wconversion -Werror -c -o /dev/null \
		-I$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("include"))') \
		tftpd/dataplane/_native.c

.PHONY: check
check: lint branches trial $(addprefix $(VENV)/.installed-,test docs dist)  ## Run lint and all tests: also interop, browser, packages
	$(PYTEST) $(PARALLEL) -m "not nightly" || $(FAILED_AGAIN) -m "not nightly"

# trial runs the test cases of unittest alone: state machines and transfers over loopback.
.PHONY: trial
trial: $(VENV)/.installed-test  ## Run the test cases that trial knows
	$(BIN)/python -m twisted.trial tests

.PHONY: nightly
nightly: $(VENV)/.installed-test $(VENV)/.installed-fuzz  ## Run the long tests, a soak test, fuzzing and mutants (hours)
	$(PYTEST) -m nightly
	TFTPD_DATAPLANE=python $(PYTEST) -m "not nightly" tests/faults
	$(BIN)/python -m tests.faults
	$(MAKE) bench BENCH=soak
	$(MAKE) fuzz FUZZ='--seconds 600'
	$(MAKE) mutants

.PHONY: locked
locked: $(VENV)/.locked  ## Make the environment from exact versions and hashes, as CI does

# The tests that need no other program, with the lowest versions that setup.cfg admits, which
# are for Python 3.11 alone. Old hypothesis takes minutes for its state machines: it reads their
# source anew for each step.
.PHONY: oldest
oldest:  ## Run the tests of the lower layers with the oldest supported libraries
	$(MAKE) VENV=$(VENV)-oldest LOCK=requirements/oldest.txt PYTHON=$(OLDEST) quick \
		BUT='$(addprefix --ignore=tests/,protocol/test_stateful.py server/test_stateful.py)'

.PHONY: versions
versions:  ## Run the tests of the lower layers with several Pythons
	for python in $(PYTHONS); do \
		$(MAKE) VENV=$(VENV)-$$(basename $$python) PYTHON=$$python quick || exit 1; \
	done

.PHONY: quick
quick: $(VENV)/.locked
	$(PYTEST) $(PARALLEL) $(BUT) $(QUICK) || $(FAILED_AGAIN) $(QUICK)

.PHONY: bench
bench: $(VENV)/.installed-bench  ## Measure servers and clients; BENCH='--scenarios win64'
	$(BIN)/python -m bench $(BENCH)

.PHONY: fuzz
fuzz: $(VENV)/.installed-fuzz  ## Fuzz; FUZZ='server --seconds 3600 --keep DIRECTORY'
	$(BIN)/python -m tests.fuzz $(or $(FUZZ),--seconds 60)

# Branches: 100 % of the layers without I/O, 95 % of the whole package.
PURE = protocol access
comma = ,
COVERAGE = $(BIN)/python -m coverage

# Tracing slows the daemons down, and a test that measures time may fail: `make test` judges.
.PHONY: coverage
coverage: $(VENV)/.installed-coverage  ## Measure the branches that `make test` runs
	$(COVERAGE) erase
	-$(COVERAGE) run -m pytest -q $(PARALLEL)
	$(COVERAGE) combine --quiet
	$(COVERAGE) report --fail-under=100 --show-missing --skip-covered \
		--include='$(subst $() $(),$(comma),$(PURE:%=tftpd/%/*))'
	$(COVERAGE) report --fail-under=95 --show-missing --skip-covered

.PHONY: branches
branches: $(VENV)/.installed-coverage  ## Fail if the tests of protocol and access miss a branch
	$(COVERAGE) erase
	$(COVERAGE) run --source='$(subst $() $(),$(comma),$(PURE:%=tftpd/%))' \
		-m pytest -q $(PARALLEL) $(PURE:%=tests/%)
	$(COVERAGE) combine --quiet
	$(COVERAGE) report --fail-under=100 --show-missing --skip-covered

# In an environment of its own: mutmut's dependencies change the reports of hypothesis.
# MUTANTS='protocol --trees DIRECTORY' continues from there.
.PHONY: mutants
mutants:  ## Put faults into protocol and access; their tests must see them
	$(MAKE) VENV=$(VENV)-mutants $(VENV)-mutants/.installed-mutants
	nice -n 19 $(VENV)-mutants/bin/python -m tests.mutation $(MUTANTS)

.PHONY: schema
schema: $(VENV)/.installed  ## Write conf/tftpd.schema.json
	$(BIN)/tftpd schema > conf/tftpd.schema.json

# The HTML site in build/html; manual pages and completions in share/, which are committed.
.PHONY: docs
docs: $(VENV)/.installed-docs  ## Build the HTML site, the manual pages and the completions
	$(BIN)/sphinx-build -W --keep-going -q -b html -d build/doctrees docs build/html
	$(BIN)/sphinx-build -W --keep-going -q -b man -d build/doctrees docs share/man
	$(BIN)/python docs/completions.py share

# UNITS=--socket has systemd hold the port.
.PHONY: install
install:  ## Install a service, as root on a host with systemd
	$(PYTHON) -m venv $(OPT)
	$(OPT)/bin/python -m pip install --quiet .
	$(OPT)/bin/tftpd install-units $(UNITS)

.PHONY: dist
dist: $(VENV)/.installed-dist  ## Build the sdist and a wheel, and check them as the package index does
	PYTHON=$(BIN)/python packaging/dist dist

# docs/how-to/debian-package.md lists the build dependencies.
.PHONY: deb
deb:  ## Build Debian packages, on Debian or Ubuntu
	packaging/deb dist

# docs/how-to/rpm-package.md lists the build dependencies.
.PHONY: rpm
rpm:  ## Build an RPM package, on Fedora; on Debian with its rpmbuild, as a test
	packaging/rpm dist

.PHONY: image
image:  ## Build the container image with podman, docker or buildah
	packaging/image $(IMAGE)

.PHONY: clean
clean:  ## Remove the environment and what was built
	rm -rf $(VENV) build dist *.egg-info

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "tftpd needs Python 3.11 or newer; name one: make PYTHON=python3.11 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv $(VENV)

# The file has all packages. With dependencies, pip would look for a newer one if another package
# asks for it with an extra.
$(VENV)/.locked: $(LOCK) | $(BIN)/python
	$(BIN)/python -m pip install --quiet --require-hashes --no-deps --requirement $(LOCK)
	$(BIN)/python -m pip install --quiet --no-index --no-deps --no-build-isolation --editable .
	touch $@ $(VENV)/.installed $(addprefix $(VENV)/.installed-,test lint coverage docs dist)

$(VENV)/.installed: $(PROJECT) | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

$(VENV)/.installed-test: $(PROJECT) | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable '.[test,origins,tls]'
	touch $@ $(VENV)/.installed

$(VENV)/.installed-lint: $(PROJECT) | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable '.[test,origins,tls,lint]'
	touch $@ $(VENV)/.installed $(VENV)/.installed-test

$(VENV)/.installed-fuzz: $(PROJECT) | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable '.[fuzz]'
	touch $@ $(VENV)/.installed

$(VENV)/.installed-coverage: $(PROJECT) | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable '.[test,origins,tls,coverage]'
	touch $@ $(VENV)/.installed $(VENV)/.installed-test

$(VENV)/.installed-mutants: $(PROJECT) | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable '.[test,origins,mutants]'
	touch $@

$(VENV)/.installed-docs: $(PROJECT) | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable '.[docs]'
	touch $@ $(VENV)/.installed

$(VENV)/.installed-dist: $(PROJECT) | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable '.[dist]'
	touch $@ $(VENV)/.installed

$(VENV)/.installed-bench: $(PROJECT) | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable '.[bench]'
	touch $@ $(VENV)/.installed
