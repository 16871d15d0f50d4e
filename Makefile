# Everyday commands. `make` alone lists them. They are thin: the work is in scripts/, bench/ and
# cargo, and can be called from there just as well.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help demo up test lint bench setup-build setup-demo setup-test

# State of `make demo` and `make up`; the demo takes a fresh temporary folder unless DIR is given.
DIR ?=
# Further arguments of `welkin up`.
ARGS ?=

help: ## List these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: setup-demo ## Start a network on this machine, run the demo job, stop (DIR=… keeps its state)
	@scripts/up --demo $(if $(DIR),--dir '$(DIR)') $(ARGS)

up: setup-build ## Start a network on this machine and keep it running (DIR=… for its state)
	@scripts/up $(if $(DIR),--dir '$(DIR)') $(ARGS)

test: setup-test ## Everything that must hold: format, lints, tests, documents, the demo
	@scripts/test

lint: setup-build ## Format and lints only
	@scripts/test lint

bench: ## Measure the figures of docs/benchmarks.md (ID=… for one of them)
	@scripts/setup build bench
	@bench/run $(ID)

setup-build: ## Install what a build needs, where it is missing
	@scripts/setup build

setup-demo: ## Install what the demo needs, where it is missing
	@scripts/setup build demo

setup-test: ## Install what the tests need, where it is missing
	@scripts/setup build test
