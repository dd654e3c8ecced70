#!/bin/sh
# One step of scripts/check.sh: NAME COMMAND... Runs it and then shows its output in one piece, so that several may run at once, and adds it to
# build/check.log. A bad end without a FAIL line of its own is a failure.
name=$1
shift
one=$(mktemp)
began=$(date +%s)
"$@" >"$one" 2>&1 </dev/null
status=$?
if [ "$status" -ne 0 ] && ! grep -q '^FAIL ' "$one"; then
	echo "FAIL $name (exit status $status)" >>"$one"
fi
{
	flock 9
	echo "== $name ($(($(date +%s) - began)) s)"
	cat "$one"
	cat "$one" >>build/check.log
} 9>build/check.lock
! grep -q '^FAIL ' "$one"
bad=$?
rm -f "$one"
exit $bad
