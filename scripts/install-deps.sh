#!/bin/sh
# Install what is missing of the tools and libraries that a build needs, on Debian 12 or Ubuntu 24.04 (apt-get; sudo when not root).
# Usage: scripts/install-deps.sh [build|test|cluster|bench]...   test: what `make check` needs besides; cluster: the image and a Kubernetes to try it in;
# bench: to build the peers
#
# What is there is found by asking for it (a command, pkg-config, a compile), not by package name: a machine that has its own clang or
# SQLite is left alone, and with everything there nothing is run at all.
set -eu
python=${PYTHON:-python3}
missing=

need() { # package; the rest is a command that succeeds when it is there
	package=$1
	shift
	"$@" >/dev/null 2>&1 || missing="$missing $package"
}
command_found() { command -v "$1"; }
library_found() { command -v pkg-config && pkg-config --exists "$1"; }
clang_links() { # with the run-time library for libFuzzer and the sanitizers, which is a package of its own
	command -v clang || return 1
	object=$(mktemp)
	echo 'int LLVMFuzzerTestOneInput(const char *p, unsigned long n) { return p && n > 9; }' |
		clang -x c -fsanitize=fuzzer,address,undefined -o "$object" -
	status=$?
	rm -f "$object"
	return $status
}
python_has() { "$python" -c "import $1"; }

find_missing() {
	missing=
	for group in "$@"; do
		case $group in
		build)
			need build-essential command_found cc
			need make command_found make
			need pkg-config command_found pkg-config
			need ca-certificates test -e /etc/ssl/certs/ca-certificates.crt
			need libsqlite3-dev library_found sqlite3
			need libzstd-dev library_found libzstd
			need libarchive-dev library_found libarchive
			need libpcre2-dev library_found libpcre2-8
			need libutf8proc-dev library_found libutf8proc
			need libxxhash-dev library_found libxxhash
			need libssl-dev library_found libcrypto
			need libcurl4-openssl-dev library_found libcurl
			need libyaml-dev library_found yaml-0.1
			need libmicrohttpd-dev library_found libmicrohttpd
			need python3 command_found "$python"
			need python3-pip python_has pip
			;;
		test)
			need python3-venv python_has ensurepip
			need clang clang_links
			need zstd command_found zstd
			need sqlite3 command_found sqlite3
			need libfuse3-dev library_found fuse3
			need prometheus command_found promtool
			;;
		cluster)
			need buildah command_found buildah
			need podman command_found podman
			need debootstrap command_found debootstrap
			need runc command_found runc
			need containernetworking-plugins test -e /usr/lib/cni/ptp
			need iptables command_found iptables
			need iproute2 command_found ip
			need openssl command_found openssl
			;;
		bench)
			need g++ command_found c++
			need cmake command_found cmake
			need ninja-build command_found ninja
			;;
		*)
			echo "usage: scripts/install-deps.sh [build|test|cluster|bench]..." >&2
			exit 1
			;;
		esac
	done
}

[ $# -gt 0 ] || set -- build
find_missing "$@"
[ -n "$missing" ] || exit 0
if ! command -v apt-get >/dev/null; then
	echo "install-deps: this machine has no apt-get. Please install (Debian's names):$missing" >&2
	exit 1
fi
sudo=
if [ "$(id -u)" -ne 0 ]; then
	command -v sudo >/dev/null || { echo "install-deps: neither root nor sudo; as root: apt-get install$missing" >&2; exit 1; }
	sudo=sudo
fi
apt() { $sudo env DEBIAN_FRONTEND=noninteractive apt-get -q -o DPkg::Lock::Timeout=300 "$@" </dev/null >&2; }
echo "install-deps: installing$missing" >&2
apt update || echo "install-deps: the package lists could not be refreshed; trying with those that are here" >&2
# shellcheck disable=SC2086
apt install -y --no-install-recommends $missing
find_missing "$@"
case $missing in
*clang*)
	version=$(clang -dumpversion | cut -d. -f1)
	apt install -y --no-install-recommends "libclang-rt-$version-dev"
	find_missing "$@"
	;;
esac
[ -z "$missing" ] || { echo "install-deps: still missing after the installation:$missing" >&2; exit 1; }
