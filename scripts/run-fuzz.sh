#!/bin/sh
# Run libFuzzer programs for FUZZ_SECONDS (10) each, TEST_JOBS (1) at once, in a fresh empty directory. New inputs are kept in build/fuzz/corpus/NAME,
# so that the next run starts from them; seeds in tests/*/seeds/NAME/ are tried first. A finding stays under build/fuzz/found/.
set -u
if [ "${1-}" != --one ]; then
	mkdir -p build/fuzz/found
	printf '%s\n' "$@" | xargs -P "${TEST_JOBS:-1}" -n 1 "$0" --one
	exit
fi
program=$2 root=$PWD
name=$(basename "$program")
case $program in /*) ;; *) program=$root/$program ;; esac
dir=$(mktemp -d) log=$(mktemp)
seeds=
for d in "$root"/tests/*/seeds/"$name"; do
	[ ! -d "$d" ] || seeds="$seeds $d"
done
mkdir -p "build/fuzz/corpus/$name"
# shellcheck disable=SC2086
if (cd "$dir" && exec "$program" -max_total_time="${FUZZ_SECONDS:-10}" -timeout=20 -rss_limit_mb=3000 -artifact_prefix="$root/build/fuzz/found/$name-" \
	-print_final_stats=1 "$root/build/fuzz/corpus/$name" $seeds) >"$log" 2>&1; then
	echo "ok $name ($(sed -n 's/^stat::number_of_executed_units: *//p' "$log") inputs)"
	status=0
else
	echo "$(tail -n 40 "$log")
FAIL $name (input under build/fuzz/found/)"
	status=1
fi
rm -rf "$dir" "$log"
exit $status
