#!/bin/sh
# Build tokenmill-cuda.so. Usage: scripts/cuda.sh OUTPUT [check]
# check: compile only, for one architecture of each kind, and look at what ptxas says of spills; prints "ok NAME" or "skip NAME: reason".
#
# The compiler is NVCC's if that is set, else one of CUDA 13 in the PATH, else NVIDIA's own wheels from the package index, pinned by version and
# SHA-256, unpacked into build/deps/cuda (105 MB to fetch). Nothing of it is needed at run time but the driver.
set -eu
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
output=$1 mode=${2-}
deps=build/deps/cuda
version=13.0.88-13.0.96-13.0.85

wheels() {
	cat <<-END
		nvidia-cuda-nvcc==13.0.88 --hash=sha256:56fe502eb77625a12f25172caa3cdddb4e4c8ba2c8c17dba44b164761b380f03
		nvidia-nvvm==13.0.88 --hash=sha256:c5f41ffeb6466944a026dfa5317d7d85355c119bbec279205d22f1869d1054e0
		nvidia-cuda-crt==13.0.88 --hash=sha256:2c8043c7c9e02492716426e9919fc78d2c5b3b2a7a768a88e952676b08aa55a4
		nvidia-cuda-runtime==13.0.96 --hash=sha256:7f82250d7782aa23b6cfe765ecc7db554bd3c2870c43f3d1821f1d18aebf0548
		nvidia-cuda-cccl==13.0.85 --hash=sha256:e0da7ad981f3a8aff08241b5bfc1af868742a63e2762f53a5171c492ef242649
	END
}

# The hashes are those of the x86-64 wheels.
fetch() {
	[ -f "$deps/$version" ] && return 0
	[ "$(uname -m)" = x86_64 ] || { echo "no CUDA compiler here, and its wheels are pinned for x86_64 alone" >&2; return 1; }
	mkdir -p build/deps
	tmp=$(mktemp -d build/deps/tmp.XXXXXX)
	trap 'rm -rf "$tmp"' EXIT
	echo "fetching CUDA's compiler (105 MB)" >&2
	wheels >"$tmp/requirements"
	"$python" -m venv "$tmp/venv" >&2 &&
		"$tmp/venv/bin/python" -m pip install -q --disable-pip-version-check --no-deps --only-binary :all: --require-hashes \
			--target "$tmp/cuda" -r "$tmp/requirements" >&2 || return 1
	touch "$tmp/cuda/$version"
	rm -rf "$deps"
	mv "$tmp/cuda" "$deps"
}

nvcc=${NVCC:-}
if [ -z "$nvcc" ] && command -v nvcc >/dev/null && nvcc --version | grep -q 'release 13\.'; then
	nvcc=$(command -v nvcc)
fi
if [ -z "$nvcc" ]; then
	if ! fetch; then
		[ "$mode" != check ] || { echo "skip cuda-compile: CUDA's compiler cannot be had here"; exit 0; }
		echo "CUDA's compiler cannot be had: see above" >&2
		exit 1
	fi
	nvcc=$deps/nvidia/cu13/bin/nvcc
fi

# Contraction only where the source says fmaf, as everywhere in this program.
flags='-std=c++17 -O3 -fmad=false -Werror all-warnings -I. -cudart static -Xcompiler -fPIC,-fvisibility=hidden,-Wall'
if [ "$mode" = check ]; then
	targets='-gencode arch=compute_80,code=sm_80 -gencode arch=compute_90a,code=sm_90a -Xptxas -v'
else
	targets='-gencode arch=compute_80,code=sm_80 -gencode arch=compute_86,code=sm_86 -gencode arch=compute_89,code=sm_89
		-gencode arch=compute_90a,code=sm_90a -gencode arch=compute_90,code=compute_90'
fi
objects=$(mktemp -d)
trap 'rm -rf "$objects" ${tmp:+"$tmp"}' EXIT
for source in engine/cuda/*.cu; do
	object=$objects/$(basename "$source" .cu).o
	# shellcheck disable=SC2086
	"$nvcc" $flags $targets -c -o "$object" "$source" 2>"$object.log" || { cat "$object.log" >&2; exit 1; }
done
if [ "$mode" = check ]; then
	if grep -h 'bytes spill' "$objects"/*.log | grep -qv ' 0 bytes spill stores, 0 bytes spill loads'; then
		grep -h -B1 'bytes spill' "$objects"/*.log
		echo "FAIL cuda-compile: registers are spilled"
		exit 1
	fi
	grep -hq 'bytes spill' "$objects"/*.log || { echo "FAIL cuda-compile: ptxas said nothing"; exit 1; }
fi
mkdir -p "$(dirname "$output")"
lib=$(dirname "$nvcc")/../lib
"$nvcc" -shared -cudart static $([ -d "$lib" ] && echo "-L$lib") -Xlinker --exclude-libs=ALL -Xlinker -z,defs -o "$output" "$objects"/*.o -ldl -lpthread -lrt
exported=$(nm -D --defined-only "$output" | awk '$2 ~ /[TDBVW]/ {print $3}')
if [ "$exported" != tokenmill_gpu_api ]; then
	echo "FAIL cuda-compile: exports $exported"
	exit 1
fi
if ldd "$output" | grep -qi 'cuda\|nv'; then
	echo "FAIL cuda-compile: needs a CUDA library at run time"
	exit 1
fi
[ "$mode" != check ] || echo "ok cuda-compile"
