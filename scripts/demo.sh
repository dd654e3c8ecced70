#!/bin/sh
# From a fresh machine to results: install, build, fetch a model and HumanEval, run, show. Usage: scripts/demo.sh smollm2|qwen-coder [ROWS]
# smollm2: SmolLM2-135M-Instruct, 98 MB. qwen-coder: Qwen2.5-Coder-1.5B-Instruct, 1.1 GB; its answers are run and scored.
set -eu
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
model=${1-}
rows=${2-}
case $model in
smollm2 | qwen-coder) ;;
*) sed -n '2,3s/^# //p' "$0" >&2; exit 1 ;;
esac
say() { printf '\n== %s\n' "$*"; }

say "what a build needs"
scripts/install-deps.sh build
echo "everything is here"
say "build"
${MAKE:-make} -s -j"$(nproc)" all
echo "build/release/tokenmill"
say "model and dataset"
file=$(scripts/fetch.sh "$model")
scripts/fetch.sh humaneval
"$python" scripts/humaneval.py prompts -o build/data/humaneval.jsonl
input=build/data/humaneval.jsonl
if [ -n "$rows" ]; then
	input=build/data/humaneval-$rows.jsonl
	head -n "$rows" build/data/humaneval.jsonl >"$input"
fi
echo "$file, $(wc -l <"$input") prompts"
out=build/demo/$model${rows:+-$rows}
say "tokenmill model info $file"
build/release/tokenmill model info "$file"
rm -rf "$out"
mkdir -p build/demo
say "tokenmill run --model $file -o $out $input"
start=$(date +%s.%N)
build/release/tokenmill run --model "$file" -o "$out" "$input"
end=$(date +%s.%N)
say "three results"
"$python" scripts/show-results.py "$out" 3 "$(echo "$end $start" | awk '{print $1 - $2}')"
say "cost, by the invented prices of manifests/prices.example.yaml: tokenmill report --prices manifests/prices.example.yaml $out"
build/release/tokenmill report --prices manifests/prices.example.yaml "$out"
say "tokenmill verify $out"
build/release/tokenmill verify "$out"
if [ "$model" = qwen-coder ]; then
	say "score: each answer is run with its task's checks"
	"$python" scripts/humaneval.py score "$out/results.jsonl" -o "$out/scores.json"
fi
