#!/bin/sh
# Workers that are killed, stopped, doubled and starved of disk, and a job that must end as if nothing had been: scripts/chaos.py --help
# The long form: scripts/chaos.sh --rows 1000000 --faults 200
cd "$(dirname "$0")/.." || exit 1
[ -x "$(dirname "${TOKENMILL:-build/release/tokenmill}")/tests/nfs_sim" ] || ${MAKE:-make} -s tests >&2 || exit 1
exec "${PYTHON:-python3}" scripts/chaos.py "$@"
