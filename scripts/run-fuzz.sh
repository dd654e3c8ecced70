#!/bin/sh
# Run libFuzzer programs for FUZZ_SECONDS (10) each, in a fresh empty directory. New inputs are kept in build/fuzz/corpus/NAME, so that the next
# run starts from them; seeds in tests/*/seeds/NAME/ are tried first. A finding stays under build/fuzz/found/.
set -u
failed=0
root=$(pwd)
log=$(mktemp)
dir=$(mktemp -d)
trap 'rm -rf "$log" "$dir"' EXIT
for program in "$@"; do
	name=$(basename "$program")
	case $program in /*) ;; *) program=$root/$program ;; esac
	seeds=
	for d in "$root"/tests/*/seeds/"$name"; do
		[ ! -d "$d" ] || seeds="$seeds $d"
	done
	mkdir -p "build/fuzz/corpus/$name" build/fuzz/found
	# shellcheck disable=SC2086
	if (cd "$dir" && "$program" -max_total_time="${FUZZ_SECONDS:-10}" -timeout=20 -rss_limit_mb=3000 -artifact_prefix="$root/build/fuzz/found/$name-" \
		-print_final_stats=1 "$root/build/fuzz/corpus/$name" $seeds) >"$log" 2>&1; then
		echo "ok $name ($(sed -n 's/^stat::number_of_executed_units: *//p' "$log") inputs)"
	else
		tail -n 40 "$log"
		echo "FAIL $name (input under build/fuzz/found/)"
		failed=1
	fi
done
exit $failed
