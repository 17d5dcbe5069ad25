#!/usr/bin/env bash
# cluster/once-more.sh COMMAND ..: run a command, and if it fails, once more; ends with its exit code.
#
# As the entrypoint of a Ray job: the second try is in the same cluster, and goes on with what is not committed.
# Not tried again: what is to be put right (2), and what was stopped (130, 143).
set -u
[ $# -ge 1 ] || { sed -n '2s/^# //p' "$0" >&2; exit 2; }

stopped=''
# `ray job stop` signals this shell and the command. It is not passed on: a second signal would cut the command short.
trap 'stopped=yes interrupted=yes' TERM INT

run() {
    local code
    "$@" &
    # A signal interrupts `wait`, which then does not tell how the command ended.
    while interrupted=''; wait $!; code=$?; [ -n "$interrupted" ]; do :; done
    return $code
}

run "$@"
code=$?
case $code in 0 | 2 | 130 | 143) exit $code ;; esac
[ -z "$stopped" ] || exit $code
echo "$0: ended with $code, once more" >&2
run "$@"
