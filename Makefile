# Every target works from a clean checkout on Debian 12, as root. What a target needs from
# Debian's packages it installs; a Rust toolchain has to be there (https://rustup.rs).

SHELL := /bin/bash
export CARGO ?= cargo
TARGET := $(or $(CARGO_TARGET_DIR),target)
PROGRAMS := $(TARGET)/debug
DIST := $(TARGET)/release
VENV := $(TARGET)/venv
XTASK := $(PROGRAMS)/xtask

# What users get of the workspace; the rest is for tests and upkeep.
COMPONENTS := $(addprefix -p ,apiserver scheduler controller-manager kubelet proxy dns cli)

.PHONY: help build up down test tidy check dist bench compose-up compose-down toolchain

help:
	@echo 'make up            build, and bring a cluster up on this machine'
	@echo 'make down          remove it'
	@echo 'make test          all tests: unit, property, contract, end to end'
	@echo 'make check         format, lints, tidy, unit tests, docs'
	@echo 'make dist          small, fast programs, for use beyond this tree (builds for twenty minutes)'
	@echo 'make bench         benchmarks of these'
	@echo 'make compose-up    a cluster of containers (docker-compose), on etcd, with three nodes'
	@echo 'make compose-down  remove it'

toolchain:
	@command -v $(CARGO) >/dev/null || { \
	  echo 'error: no Rust toolchain: install Rust 1.88 or newer (https://rustup.rs; Debian 12 has 1.63)' >&2; exit 1; }

# The whole workspace is selected here and in the tests, so that a crate has the same features in both and is
# compiled once.
build: toolchain
	@deploy/packages.sh build
	@deploy/build.sh --workspace --bins

up: build
	@deploy/packages.sh run
	$(PROGRAMS)/skiff up $(UP_FLAGS)

down:
	@if [ -x $(PROGRAMS)/skiff ]; then $(PROGRAMS)/skiff down; else echo 'nothing was built here, so nothing runs'; fi

test: build
	@deploy/packages.sh run test compose vm
	@deploy/build.sh --workspace --tests
	@$(XTASK) images
	@deploy/python.sh $(VENV) docs/requirements.txt tests/requirements.txt
	@deploy/kubectl.sh $(VENV)/bin
	@deploy/node.sh $(abspath $(VENV))
	@$(XTASK) test --python $(abspath $(VENV))/bin/python

tidy: build
	$(CARGO) fmt --all --check
	$(XTASK) tidy
	$(XTASK) codegen --check

check: tidy
	@deploy/packages.sh test
	$(CARGO) clippy --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS='-D warnings' $(CARGO) doc --workspace --no-deps --document-private-items -q
	$(XTASK) test --no-end-to-end

dist: toolchain
	@deploy/packages.sh build
	@deploy/build.sh --release --bins $(COMPONENTS)

# BENCH_PROFILE=dev measures the programs of `make up`, without building others.
BENCH_PROFILE ?= release
bench: build $(if $(filter release,$(BENCH_PROFILE)),dist)
	@deploy/packages.sh run test
	@$(XTASK) images
	$(CARGO) bench --workspace --bench '*' --profile $(BENCH_PROFILE)

compose-up:
	@deploy/compose.sh up

compose-down:
	@deploy/compose.sh down
