#!/bin/sh
# The goals of a job (plan, run and publish, resume, merge, verify) measured with the fake engine, one line each: figure, goal, met or not.
# Usage: scripts/bench-job.sh [--rows 1000000] [--model FILE.gguf] [--dir DIR] [--keep]; a million rows take some 7 GB and minutes.
set -eu
cd "$(dirname "$0")/.."
${MAKE:-make} -s all build/release/tests/tool_resume
exec "${PYTHON:-python3}" scripts/bench-job.py "$@"
