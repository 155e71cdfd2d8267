#!/usr/bin/env bash
# Runs `make demo` as a new user does, until the product page answers; then stops it with Ctrl-C's signal.
# Fails when no page comes in time, when the page is not bookinfo's, or when the demo does not stop clean.
set -euo pipefail
cd "$(dirname "$0")/.."

DEADLINE_S=${DEADLINE_S:-1500}
log=$(mktemp)
trap 'rm -f "$log"' EXIT
started=$(date +%s)

# In a process group of its own, so that the signal reaches what a terminal's Ctrl-C reaches.
set -m
make demo >"$log" 2>&1 </dev/null &
group=$!
set +m

stop() { kill -INT -- "-$group" 2>/dev/null || true; }
fail() {
    echo "demo: $1" >&2
    cat "$log" >&2
    stop
    exit 1
}

url=
until [ -n "$url" ] && page=$(curl -sf --max-time 5 "$url"); do
    kill -0 "$group" 2>/dev/null || fail "ended before the product page answered"
    [ $(($(date +%s) - started)) -lt "$DEADLINE_S" ] || fail "no product page within $DEADLINE_S s"
    url=$(grep -oE 'http://127\.0\.0\.1:[0-9]+/productpage' "$log" | head -1 || true)
    read -rt 0.5 <> <(:) || true
done
grep -q 'The Comedy of Errors' <<<"$page" || fail "the product page is not bookinfo's"
echo "demo: the product page answered $(($(date +%s) - started)) s after \`make demo\`"

stop
status=0
wait "$group" || status=$?
# `make` reports a signal that ended its child; `tanbark up` itself ends with 0.
case $status in
    0 | 2 | 130) ;;
    *) fail "ended with status $status" ;;
esac
! pgrep -g "$group" >/dev/null || fail "left processes behind"
echo "demo: stopped clean"
