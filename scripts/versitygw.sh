#!/bin/sh
# Build versitygw, an S3 server over a directory written by others, for tests; prints the path of the program. The Go module carries its
# own checksum (go.sum, checked against the checksum database by go itself). Without Go: one line on stderr, exit status 2.
set -eu
cd "$(dirname "$0")/.."
version=v1.8.0
program=$PWD/build/peers/versitygw-$version
if [ ! -x "$program" ]; then
	command -v go >/dev/null || { echo "Go is not installed, so versitygw cannot be built" >&2; exit 2; }
	mkdir -p build/peers
	tmp=$(mktemp -d build/peers/tmp.XXXXXX)
	trap 'rm -rf "$tmp"' EXIT
	echo "building versitygw $version (about two minutes on two cores)" >&2
	GOBIN=$PWD/$tmp CGO_ENABLED=0 nice go install "github.com/versity/versitygw/cmd/versitygw@$version" >build/peers/versitygw.log 2>&1 ||
		{ tail -n 5 build/peers/versitygw.log >&2; echo "versitygw could not be built" >&2; exit 2; }
	mv "$tmp/versitygw" "$program"
fi
echo "$program"
