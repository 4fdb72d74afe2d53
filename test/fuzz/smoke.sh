#!/bin/sh
# A short run of a libFuzzer target: smoke.sh TARGET [CORPUS]. What it finds goes to a folder of its
# own, so the tree stays as it is; an input that fails is left in the current folder.
set -eu
found=$(mktemp -d)
trap 'rm -rf "$found"' EXIT
"$1" -runs=20000 -max_total_time=20 -max_len=4096 -print_final_stats=1 "$found" ${2:+"$2"}
