# Two targets do everything on a fresh machine: `make serve` and `make test`.
# A third one makes a service of it: `make install`.

PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin

LOCK ?= requirements/ci.txt
OLDEST ?= python3.11
PYTHONS ?= python3.11 python3.12 python3.13
QUICK ?= $(addprefix tests/,protocol access storage config net server)

# What is deprecated now fails with the next Python or Twisted. A test that fails
# may leave sockets: that is told, and hides nothing.
STRICT = -W error -W default::ResourceWarning -W default::pytest.PytestUnraisableExceptionWarning

# Where `make install` puts the program; the units name it.
OPT ?= /opt/tftpd
UNITS ?=

.PHONY: serve test lint bench fuzz coverage floors mutants schema docs install deb clean
.PHONY: locked oldest versions quick

serve: $(VENV)/.installed
	$(BIN)/twistd -n --pidfile= tftp --config conf/tftpd.yaml

test: $(VENV)/.installed-test
	$(BIN)/python -m pytest $(STRICT)

lint: $(VENV)/.installed-lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# What has the environment made of exact versions by their hashes, as CI does;
# `make test lint` then takes it as it is.
locked: $(VENV)/.locked

# The floors that need no programs beside them, with the lowest versions that
# setup.cfg admits. They are for Python 3.11 alone. Old hypothesis takes minutes for
# its state machines, which reads their source anew for each step.
oldest:
	$(MAKE) VENV=$(VENV)-oldest LOCK=requirements/oldest.txt PYTHON=$(OLDEST) quick \
		BUT='$(addprefix --ignore=tests/,protocol/test_stateful.py server/test_stateful.py)'

# The same with the versions of CI on other Pythons.
versions:
	for python in $(PYTHONS); do \
		$(MAKE) VENV=$(VENV)-$$(basename $$python) PYTHON=$$python quick || exit 1; \
	done

quick: $(VENV)/.locked
	$(BIN)/python -m pytest -q $(STRICT) $(BUT) $(QUICK)

bench: $(VENV)/.installed-bench
	$(BIN)/python -m bench $(BENCH)

# Where atheris has a wheel; FUZZ='server --seconds 3600 --keep /tmp/kept'
fuzz: $(VENV)/.installed-fuzz
	$(BIN)/python -m fuzz $(or $(FUZZ),--all --seconds 60)

# Branches: all of the floors without I/O, and 95 of 100 of the whole.
FLOORS = protocol access
comma = ,
COVERAGE = $(BIN)/python -m coverage

# What fails while it is traced, since it goes by the clock, is for `make test` to judge.
coverage: $(VENV)/.installed-coverage
	$(COVERAGE) erase
	-$(COVERAGE) run -m pytest
	$(COVERAGE) combine --quiet
	$(COVERAGE) report --fail-under=100 --show-missing --skip-covered \
		--include='$(subst $() $(),$(comma),$(FLOORS:%=tftpd/%/*))'
	$(COVERAGE) report --fail-under=95 --show-missing --skip-covered

# The same of those floors by their own tests alone: half a minute.
floors: $(VENV)/.installed-coverage
	$(COVERAGE) erase
	$(COVERAGE) run --source='$(subst $() $(),$(comma),$(FLOORS:%=tftpd/%))' \
		-m pytest -q $(FLOORS:%=tests/%)
	$(COVERAGE) combine --quiet
	$(COVERAGE) report --fail-under=100 --show-missing --skip-covered

# In an environment of its own: what mutmut brings makes hypothesis report otherwise.
# MUTANTS='protocol --trees /tmp/kept' goes on from there.
mutants:
	$(MAKE) VENV=$(VENV)-mutants $(VENV)-mutants/.installed-mutants
	nice -n 19 $(VENV)-mutants/bin/python -m tests.mutation $(MUTANTS)

schema: $(VENV)/.installed
	$(BIN)/tftpd schema > conf/tftpd.schema.json

# The HTML site in build/html; manual pages and completions in share/, which are committed.
docs: $(VENV)/.installed-docs
	$(BIN)/sphinx-build -W --keep-going -q -b html -d build/doctrees docs build/html
	$(BIN)/sphinx-build -W --keep-going -q -b man -d build/doctrees docs share/man
	$(BIN)/python docs/completions.py share

# As root, on a host with systemd. UNITS=--socket has systemd hold the port.
install:
	$(PYTHON) -m venv $(OPT)
	$(OPT)/bin/python -m pip install --quiet .
	$(OPT)/bin/tftpd install-units $(UNITS)

# On Debian or Ubuntu; docs/how-to/debian-package.md lists the build dependencies.
deb:
	packaging/deb dist

clean:
	rm -rf $(VENV) build dist *.egg-info

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "tftpd needs Python 3.11 or newer; name one: make PYTHON=python3.11 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.locked: $(LOCK) | $(BIN)/python
	$(BIN)/python -m pip install --quiet --require-hashes --requirement $(LOCK)
	$(BIN)/python -m pip install --quiet --no-index --no-deps --no-build-isolation --editable .
	touch $@ $(VENV)/.installed $(addprefix $(VENV)/.installed-,test lint coverage docs)

$(VENV)/.installed: setup.cfg pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

$(VENV)/.installed-test: setup.cfg pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable '.[test]'
	touch $@ $(VENV)/.installed

$(VENV)/.installed-lint: setup.cfg pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable '.[test,lint]'
	touch $@ $(VENV)/.installed $(VENV)/.installed-test

$(VENV)/.installed-fuzz: setup.cfg pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable '.[fuzz]'
	touch $@ $(VENV)/.installed

$(VENV)/.installed-coverage: setup.cfg pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable '.[test,coverage]'
	touch $@ $(VENV)/.installed $(VENV)/.installed-test

$(VENV)/.installed-mutants: setup.cfg pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable '.[test,mutants]'
	touch $@

$(VENV)/.installed-docs: setup.cfg pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable '.[docs]'
	touch $@ $(VENV)/.installed

$(VENV)/.installed-bench: setup.cfg pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable '.[bench]'
	touch $@ $(VENV)/.installed
