#!/usr/bin/env bash
# Runs the tests of tests/acceptance/tests/rotation.rs for longer (seconds, default 180): certificates that change every few seconds under load,
# and a control plane that is away, with both proxies. Fails on the first request that fails.
set -euo pipefail
cd "$(dirname "$0")/.."
cargo build --release --locked -p tanbark -p tanbark-proxy -p bookinfo -p echo
TANBARK_TEST_SECONDS="${1:-180}" cargo test --release --locked -p acceptance --test rotation -- --test-threads=1
