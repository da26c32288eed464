# Every target works from a clean checkout on Debian 12, as root. What a target needs from
# Debian's packages it installs; a Rust toolchain has to be there (https://rustup.rs).

SHELL := /bin/bash
CARGO ?= cargo
RELEASE := $(or $(CARGO_TARGET_DIR),target)/release
VENV := $(or $(CARGO_TARGET_DIR),target)/venv

.PHONY: help build up down test check bench compose-up compose-down toolchain

help:
	@echo 'make up            build, and bring a cluster up on this machine'
	@echo 'make down          remove it'
	@echo 'make test          all tests: unit, property, contract, end to end'
	@echo 'make check         format, lints, tidy, unit tests, docs'
	@echo 'make bench         benchmarks'
	@echo 'make compose-up    a cluster of containers (docker-compose), on etcd, with three nodes'
	@echo 'make compose-down  remove it'

toolchain:
	@command -v $(CARGO) >/dev/null || { \
	  echo 'error: no Rust toolchain: install Rust 1.88 or newer (https://rustup.rs; Debian 12 has 1.63)' >&2; exit 1; }

build: toolchain
	@deploy/packages.sh build
	$(CARGO) build --release --bins --workspace --exclude xtask --exclude testserver

up: build
	@deploy/packages.sh run
	$(RELEASE)/skiff up $(UP_FLAGS)

down:
	@if [ -x $(RELEASE)/skiff ]; then $(RELEASE)/skiff down; else echo 'nothing was built here, so nothing runs'; fi

test: toolchain
	@deploy/packages.sh build run test compose
	$(CARGO) build --workspace --bins
	$(CARGO) run -q -p xtask -- images
	@deploy/python.sh $(VENV) docs/requirements.txt tests/requirements.txt
	@$(CARGO) run -q -p xtask -- test --python $(abspath $(VENV))/bin/python

check: toolchain
	@deploy/packages.sh build test
	$(CARGO) fmt --all --check
	$(CARGO) run -q -p xtask -- tidy
	$(CARGO) clippy --workspace --all-targets -- -D warnings
	$(CARGO) run -q -p xtask -- codegen --check
	RUSTDOCFLAGS='-D warnings' $(CARGO) doc --workspace --no-deps --document-private-items -q
	$(CARGO) run -q -p xtask -- test --no-end-to-end

bench: build
	@deploy/packages.sh run test
	$(CARGO) run -q -p xtask -- images
	$(CARGO) bench --workspace --bench '*'

compose-up:
	@deploy/compose.sh up

compose-down:
	@deploy/compose.sh down
