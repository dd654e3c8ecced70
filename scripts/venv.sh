#!/bin/sh
# Make build/venv, the Python packages that the differential tests need, pinned with their hashes in scripts/requirements-test.txt.
# Made anew when that list or the interpreter's version changes. Prints the path of its python.
set -eu
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
list=scripts/requirements-test.txt
want="$("$python" --version) $(sha256sum "$list")"
if [ ! -f build/venv/made-from ] || [ "$(cat build/venv/made-from)" != "$want" ]; then
	echo "making build/venv from $list" >&2
	rm -rf build/venv
	mkdir -p build
	"$python" -m venv build/venv
	build/venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes --only-binary :all: -r "$list" >&2
	echo "$want" >build/venv/made-from
fi
echo "$PWD/build/venv/bin/python"
