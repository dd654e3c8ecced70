#!/bin/sh
# Run libFuzzer programs for FUZZ_SECONDS (10) each. New inputs are kept in build/fuzz/corpus/NAME, so that the next run starts from them; seeds
# in tests/*/seeds/NAME/ are tried first. A finding stays under build/fuzz/found/.
set -u
failed=0
log=$(mktemp)
trap 'rm -f "$log"' EXIT
for program in "$@"; do
	name=$(basename "$program")
	corpus=build/fuzz/corpus/$name
	seeds=
	for d in tests/*/seeds/"$name"; do
		[ ! -d "$d" ] || seeds="$seeds $d"
	done
	mkdir -p "$corpus" build/fuzz/found
	# shellcheck disable=SC2086
	if "$program" -max_total_time="${FUZZ_SECONDS:-10}" -timeout=20 -rss_limit_mb=3000 -artifact_prefix="build/fuzz/found/$name-" -print_final_stats=1 \
		"$corpus" $seeds >"$log" 2>&1; then
		echo "ok $name ($(sed -n 's/^stat::number_of_executed_units: *//p' "$log") inputs)"
	else
		tail -n 40 "$log"
		echo "FAIL $name (input under build/fuzz/found/)"
		failed=1
	fi
done
exit $failed
