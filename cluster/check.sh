#!/usr/bin/env bash
# cluster/check.sh FOLDER: `flexray plan` for each recipe of a folder; ends with the highest exit code.
#
# Reads recipes, data and the models' files, needs no GPU, and writes nothing.
set -u
# As in a job of the cluster: its nodes answer, so this machine's CPUs and memory are not compared with what a recipe
# asks for. Nothing connects to the address.
export RAY_ADDRESS=${RAY_ADDRESS:-auto}
[ $# = 1 ] || { sed -n '2s/^# //p' "$0" >&2; exit 2; }

worst=0 found=
for recipe in "$1"/*.yaml; do
    [ -e "$recipe" ] || continue
    found=yes
    echo "== $recipe"
    flexray plan "$recipe"
    code=$?
    [ $code -le $worst ] || worst=$code
done
[ -n "$found" ] || { echo "error: $1: a folder without a recipe, *.yaml" >&2; exit 2; }
exit $worst
