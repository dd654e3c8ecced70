#!/bin/sh
# Build what tests/cluster/lab.py starts, once: kubelab (main.go here: Kubernetes with its kubelet and etcd), containerd with its shim and
# ctr, a pause program. From Go modules, checked by go itself against the checksum database. pause.tar is its image. Prints the directory they are in, under
# CLUSTER_CACHE (~/.cache/tokenmill-cluster), outside the tree since they take nine minutes of two cores. --find: build nothing; exit
# status 2, and one line that says what is missing, if they are not there. Needs Go 1.26, a C compiler.
set -eu
cd "$(dirname "$0")"
kubernetes=1.37.2 containerd=v2.4.2
cache=${CLUSTER_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/tokenmill-cluster}
bin=$cache/kubernetes-$kubernetes-containerd-$containerd
if [ -e "$bin/complete" ]; then
	echo "$bin"
	exit 0
fi
if [ "${1:-}" = --find ]; then
	echo "there is no cluster built in $cache (tests/cluster/build.sh builds it: nine minutes of two cores)" >&2
	exit 2
fi
command -v go >/dev/null || { echo "Go is not installed, so no cluster can be built" >&2; exit 2; }
mkdir -p "$cache"
exec 9>"$cache/lock" # two that build at once would only wait for each other's compiler
command -v flock >/dev/null && flock 9
if [ -e "$bin/complete" ]; then
	echo "$bin"
	exit 0
fi
echo "building Kubernetes $kubernetes and containerd $containerd for the tests (nine minutes of two cores)" >&2
work=$cache/source
rm -rf "$work"
mkdir -p "$work" "$bin"
cp kubelab/main.go "$work/"

# k8s.io/kubernetes names its staging modules v0.0.0 and replaces them by folders of its own tree, which a dependant does not have: take
# the modules that were published from those folders with the same release.
staging="api apiextensions-apiserver apimachinery apiserver cli-runtime client-go cloud-provider cluster-bootstrap code-generator
	component-base component-helpers controller-manager cri-api cri-client cri-streaming streaming csi-translation-lib
	dynamic-resource-allocation endpointslice externaljwt kms kube-aggregator kube-controller-manager kube-proxy kube-scheduler kubectl
	kubelet metrics mount-utils pod-security-admission sample-apiserver"
{
	printf 'module kubelab\n\ngo 1.26.0\n\nrequire k8s.io/kubernetes v%s\n\nreplace (\n' "$kubernetes"
	for module in $staging; do
		printf '\tk8s.io/%s => k8s.io/%s v0.%s\n' "$module" "$module" "${kubernetes#1.}"
	done
	echo ')'
} >"$work/go.mod"

version=k8s.io/component-base/version
minor=${kubernetes#1.}
{
	(cd "$work" && nice -n 19 go mod tidy && nice -n 19 go build -trimpath -buildvcs=false -o "$bin/kubelab" -ldflags \
		"-s -w -X $version.gitVersion=v$kubernetes -X $version.gitMajor=1 -X $version.gitMinor=${minor%.*} -X $version.gitTreeState=clean" .) &&
	c=github.com/containerd/containerd/v2/cmd &&
	CGO_ENABLED=0 GOBIN=$bin GOFLAGS=-buildvcs=false nice -n 19 go install -trimpath -ldflags '-s -w' \
		-tags no_btrfs,no_devmapper,no_zfs "$c/containerd@$containerd" "$c/containerd-shim-runc-v2@$containerd" "$c/ctr@$containerd"
} >"$cache/build.log" 2>&1 || { tail -n 5 "$cache/build.log" >&2; echo "the cluster could not be built" >&2; exit 2; }
# The process that holds a pod's namespaces. An image is a tar of a tar and two JSON files; no tool is needed to make one.
cc -O2 -static -o "$work/pause" pause.c
python3 pause_image.py "$work/pause" "$bin/pause.tar"
rm -rf "$work"
touch "$bin/complete"
echo "$bin"
