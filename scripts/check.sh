#!/bin/sh
# Everything that can be tested on this machine; `make check` calls it. Every test prints "ok NAME", "FAIL NAME" or "skip NAME: reason", and
# the last line counts them. Usage: scripts/check.sh [SECTION]...   sections: unit asan tsan fuzz cuda diff e2e cluster (default: all)
# CLUSTER=1: build the test cluster where it is not there yet, and run all of its tests, not only the short form.
# ROUNDS (2), FUZZ_SECONDS (5): longer forms of the end-to-end tests and of the fuzzers.
set -u
cd "$(dirname "$0")/.."
jobs=$(nproc)
export PYTHON="${PYTHON:-python3}" NO_TOTAL=1 TEST_JOBS="$jobs"
make=${MAKE:-make}
mkdir -p build
all=build/check.log
: >"$all"

# name, command...
step() { scripts/check-step.sh "$@"; }
# as step, and a good end is an "ok" of its own
build() { step "$@" && echo "ok $1" | tee -a "$all"; }
# Python tests on the lines of standard input, as many at once as there are processors: most of them wait most of the time.
python_tests() { xargs -P "$jobs" -I{} sh -c 'scripts/check-step.sh "$(basename {} .py)" "$0" {}' "$1"; }
# Those that take longest go first.
longest_first() {
	for name in test_s3_store test_chaos test_replan test_life test_s3_job; do
		echo "tests/e2e/$name.py"
	done | { cat; ls tests/e2e/test_*.py; } | awk '!seen[$0]++'
}

unit() {
	build build-release $make -s -j"$jobs" all tests
	step unit $make -s -j"$jobs" test
	build headers $make -s hdr-check
}
asan() { build build-asan $make -s -j"$jobs" VARIANT=asan all tests && step asan $make -s VARIANT=asan test; }
tsan() { build build-tsan $make -s -j"$jobs" VARIANT=tsan tests && step tsan $make -s tsan; }
fuzz() { build build-fuzz $make -s -j"$jobs" VARIANT=fuzz fuzzers && FUZZ_SECONDS=${FUZZ_SECONDS:-5} step fuzz $make -s fuzz; }

# a Python test with the packages of build/venv, on the release program
python_test() { step "$(basename "$1" .py)" env TOKENMILL="$PWD/build/release/tokenmill" "$venv" "$@"; }

diff() {
	venv=$(scripts/venv.sh) || { echo "FAIL venv" | tee -a "$all"; return; }
	python_test scripts/diff-tokenizer.py build/models/SmolLM2-135M-Instruct.Q4_1.gguf
	python_test scripts/diff-template.py
	python_test scripts/check-openai.py
	python_test scripts/diff-sigv4.py
}
e2e() {
	scripts/venv.sh >/dev/null || echo "FAIL venv" | tee -a "$all" # has an S3 server
	longest_first | TEST_ROUNDS=${ROUNDS:-2} python_tests "$PYTHON"
	# The rows of every kind of fault once more with the sanitizers looking.
	if [ -x build/asan/tokenmill ]; then
		TOKENMILL=$PWD/build/asan/tokenmill step test_rows-asan "$PYTHON" tests/e2e/test_rows.py
	fi
}

# What no GPU is needed for: tests/cuda run the kernels on the CPU in `unit` and `asan`; here they are compiled for GPUs.
cuda() { step cuda-compile scripts/cuda.sh build/cuda-check/tokenmill-cuda.so check; }

cluster() {
	venv=$(scripts/venv.sh) || { echo "FAIL venv" | tee -a "$all"; return; }
	[ -z "${CLUSTER:-}" ] || build install-deps-cluster scripts/install-deps.sh cluster
	for script in tests/cluster/test_*.py; do
		python_test "$script"
	done
}

[ $# -gt 0 ] || set -- unit asan tsan fuzz cuda diff e2e cluster
start=$(date +%s)
build install-deps scripts/install-deps.sh build test
if grep -q '^FAIL ' "$all"; then
	set --
fi
for model in smollm2 humaneval; do
	build "fetch-$model" scripts/fetch.sh "$model"
done
for section in "$@"; do
	$section
done
grep '^FAIL ' "$all"
echo "took $(($(date +%s) - start)) s"
passed=$(grep -c '^ok ' "$all") failed=$(grep -c '^FAIL ' "$all") skipped=$(grep -c '^skip ' "$all")
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ]
