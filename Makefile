# Two targets do everything on a fresh machine: `make serve` and `make test`.
# A third one makes a service of it: `make install`.

PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin

# Where `make install` puts the program; the units name it.
OPT ?= /opt/tftpd
UNITS ?=

.PHONY: serve test lint bench fuzz schema manuals install deb clean

serve: $(VENV)/.installed
	$(BIN)/twistd -n --pidfile= tftp --config conf/tftpd.yaml

test: $(VENV)/.installed-test
	$(BIN)/python -m pytest

lint: $(VENV)/.installed-lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/.installed-bench
	$(BIN)/python -m bench $(BENCH)

# Where atheris has a wheel; FUZZ='server --seconds 3600 --keep /tmp/kept'
fuzz: $(VENV)/.installed-fuzz
	$(BIN)/python -m fuzz $(or $(FUZZ),--all --seconds 60)

schema: $(VENV)/.installed
	$(BIN)/tftpd schema > conf/tftpd.schema.json

manuals: $(VENV)/.installed
	$(BIN)/python -m manuals

# As root, on a host with systemd. UNITS=--socket has systemd hold the port.
install:
	$(PYTHON) -m venv $(OPT)
	$(OPT)/bin/python -m pip install --quiet .
	$(OPT)/bin/tftpd install-units $(UNITS)

# On Debian or Ubuntu; docs/operations.md tells what it needs.
deb:
	packaging/deb dist

clean:
	rm -rf $(VENV) build dist *.egg-info

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "tftpd needs Python 3.11 or newer; name one: make PYTHON=python3.11 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv $(VENV)

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

$(VENV)/.installed-bench: setup.cfg pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable '.[bench]'
	touch $@ $(VENV)/.installed
