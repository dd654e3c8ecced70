#!/bin/sh
# Run test programs, each in a fresh empty directory and TEST_JOBS (1) at once; print every test's line, a program's in one piece, and at the end
# "N passed, N failed, N skipped" (unless NO_TOTAL is set: scripts/check.sh counts over everything).
# A program that ends badly without a FAIL line (a crash, a sanitizer report) counts as one failure.
set -u
if [ "${1-}" = --one ]; then
	case $3 in /*) program=$3 ;; *) program=$PWD/$3 ;; esac
	name=$(basename "$3") dir=$(mktemp -d) log=$(mktemp)
	(cd "$dir" && TOKENMILL_SOURCE=$OLDPWD exec timeout "${TEST_TIMEOUT:-600}" "$program") >"$log" 2>&1 </dev/null
	status=$?
	if [ "$status" -ne 0 ] && ! grep -q '^FAIL ' "$log"; then
		echo "FAIL $name (exit status $status)" >>"$log"
	fi
	{
		flock 9
		echo "== $name"
		cat "$log"
	} 9>>"$2"
	rm -rf "$dir" "$log"
	exit 0
fi
all=$(mktemp) lock=$(mktemp)
printf '%s\n' "$@" | xargs -P "${TEST_JOBS:-1}" -n 1 "$0" --one "$lock" | tee "$all"
passed=$(grep -c '^ok ' "$all") failed=$(grep -c '^FAIL ' "$all") skipped=$(grep -c '^skip ' "$all")
rm -f "$all" "$lock"
[ -n "${NO_TOTAL-}" ] || echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ]
