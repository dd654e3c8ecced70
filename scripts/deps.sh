#!/bin/sh
# Fetch what the distribution lacks, pinned by version and SHA-256, into build/deps/. Usage: scripts/deps.sh NAME
set -eu
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}

case ${1-} in
yyjson)
	version=4.0.6 # of the PyPI package; it carries yyjson 0.10.0
	sha256=fcd4dc15c1e39a30bf9fa85d56903029111506860fc3080ab0d81c6c6dacaa8c
	# make compares times: the header must not be older than this script.
	if [ -f "build/deps/yyjson/$version" ]; then
		touch build/deps/yyjson/yyjson.h
		exit 0
	fi
	mkdir -p build/deps
	tmp=$(mktemp -d build/deps/tmp.XXXXXX)
	trap 'rm -rf "$tmp"' EXIT
	echo "fetching yyjson $version" >&2
	file=$tmp/yyjson-$version.tar.gz
	"$python" scripts/fetch-sdist.py yyjson "yyjson-$version.tar.gz" $sha256 "$file" >&2
	tar -xzf "$file" -C "$tmp"
	mkdir -p "$tmp/yyjson"
	cp "$tmp/yyjson-$version/yyjson/yyjson.c" "$tmp/yyjson-$version/yyjson/yyjson.h" "$tmp/yyjson/"
	touch "$tmp/yyjson/$version" "$tmp/yyjson/yyjson.h"
	rm -rf build/deps/yyjson
	mv "$tmp/yyjson" build/deps/yyjson
	;;
*)
	echo "usage: scripts/deps.sh yyjson" >&2
	exit 1
	;;
esac
