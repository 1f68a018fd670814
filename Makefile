# Everything here runs as root or as an ordinary user. What is missing is installed, or it is said what to install.
# Each target is a script of the same name that can be run by itself; see the first lines of scripts/*.

# The major version of PostgreSQL: 15, 16, 17 or 18.
PG ?= 15
ALL = 15 16 17 18
# How long "make fuzz" spends on each parser.
SECONDS = 60
SERVER = /tmp/audit-server-$(shell id -u)-$(PG)

.DEFAULT_GOAL := help
.PHONY: help demo server server-stop test test-all test-core test-cassert fuzz counts check fmt install bench setup clean
.NOTPARALLEL:

help: ## print this list
	@echo 'usage: make TARGET [PG=15|16|17|18]'
	@sed -nE 's/^([a-z-]+):.*## (.*)/  \1 \t\2/p' $(MAKEFILE_LIST) | expand -t 16

demo: ## see the product at work in a minute, on a throw-away server
	@scripts/demo $(PG)

server: ## start a private server with the extension and leave it running
	@AUDIT_BINDIR=$$(scripts/tree $(PG)) && export AUDIT_BINDIR && \
	  PORT=$$(scripts/server start $(SERVER)) && \
	  PSQL="$$AUDIT_BINDIR/psql -h $(SERVER) -p $$PORT -U postgres" && \
	  $$PSQL -X -q -c 'CREATE EXTENSION audit' && \
	  printf '%s\n' "The server runs, with the extension in database postgres. To reach it:" "  $$PSQL" \
	    "To stop and remove it:" "  make server-stop PG=$(PG)"

server-stop: ## stop and remove the server of "make server"
	@scripts/server stop $(SERVER)

test: ## run all tests for one major
	@scripts/test core $(PG)

test-all: ## run all tests for all majors
	@scripts/test core $(ALL)

test-core: ## run the tests that need no PostgreSQL
	@scripts/test core

test-cassert: ## run all tests on a server built with assertions
	@AUDIT_CASSERT=1 scripts/test $(PG)

fuzz: ## give each parser damaged input for SECONDS (60)
	@cargo run --quiet --release --package audit-ledger --example fuzz -- $(SECONDS)

counts: ## count the instructions that an entry takes; RECORD=1 records them
	@scripts/counts $(if $(RECORD),--record)

check: ## check format and lints
	@scripts/test check $(PG)

fmt: ## format the Rust code
	@cargo fmt --all

install: ## build and install into the system's PostgreSQL, or that of PG_CONFIG=...
	@scripts/install $(PG) $(PG_CONFIG)

bench: ## measure what auditing costs and print it as ratios; OPTIONS=--peers adds others
	@AUDIT_BINDIR=$$(scripts/tree $(PG)) && export AUDIT_BINDIR && bench/run $(OPTIONS)

setup: ## install what building and testing needs
	@scripts/setup $(PG)

clean: ## remove what was built here; installations of PostgreSQL stay in the cache
	@scripts/clean
