#!/bin/sh
# Run test programs, each in a fresh empty directory; print every test's line and at the end "N passed, N failed, N skipped"
# (unless NO_TOTAL is set: scripts/check.sh counts over everything).
# A program that ends badly without a FAIL line (a crash, a sanitizer report) counts as one failure.
set -u
passed=0 failed=0 skipped=0
root=$(pwd)
log=$(mktemp)
for t in "$@"; do
	case $t in /*) program=$t ;; *) program=$root/$t ;; esac
	name=$(basename "$t")
	dir=$(mktemp -d)
	echo "== $name"
	(cd "$dir" && TOKENMILL_SOURCE=$root timeout "${TEST_TIMEOUT:-600}" "$program") >"$log" 2>&1 </dev/null
	status=$?
	cat "$log"
	p=$(grep -c '^ok ' "$log") f=$(grep -c '^FAIL ' "$log") s=$(grep -c '^skip ' "$log")
	if [ "$status" -ne 0 ] && [ "$f" -eq 0 ]; then
		echo "FAIL $name (exit status $status)"
		f=1
	fi
	passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + s))
	rm -rf "$dir"
done
rm -f "$log"
[ -n "${NO_TOTAL-}" ] || echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ]
