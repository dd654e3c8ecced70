#!/bin/sh
# Build the image of manifests/image/Dockerfile with buildah. Usage: scripts/image.sh [NAME:TAG]   (localhost/tokenmill:latest)
# BUILD_BASE names the image to compile in; without it one is made by debootstrap, since not everybody can reach a registry.
# SOURCE_DATE_EPOCH is the time of everything in the image (default: of the last commit): the same sources and Debian packages give the same
# image. IMAGE_CACHE=no builds every step anew. On a machine without buildah: one line on stderr, exit status 2.
set -eu
cd "$(dirname "$0")/.."
name=${1:-localhost/tokenmill:latest}
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || echo 0)}
export SOURCE_DATE_EPOCH
suite=bookworm

command -v buildah >/dev/null || { echo "image: buildah is not installed" >&2; exit 2; }
if [ -z "${BUILD_BASE:-}" ]; then
	BUILD_BASE=localhost/tokenmill-build-base:$suite
	if ! buildah inspect --type image "$BUILD_BASE" >/dev/null 2>&1; then
		[ "$(id -u)" -eq 0 ] || { echo "image: debootstrap needs root; give BUILD_BASE, an image of Debian $suite" >&2; exit 2; }
		command -v debootstrap >/dev/null || { echo "image: debootstrap is not installed" >&2; exit 2; }
		echo "image: making $BUILD_BASE by debootstrap" >&2
		base=$(mktemp -d)
		trap 'rm -rf "$base"' EXIT
		# shellcheck disable=SC2086
		nice debootstrap --variant=minbase "$suite" "$base/root" ${DEBIAN_MIRROR:-} >"$base/log" ||
			{ tail -n 5 "$base/log" >&2; exit 1; }
		rm -rf "$base"/root/var/cache/apt/archives/*.deb "$base"/root/var/lib/apt/lists/*
		tar -C "$base/root" -cf "$base/root.tar" .
		container=$(buildah from scratch)
		buildah add -q "$container" "$base/root.tar" / >/dev/null
		buildah config --env PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "$container"
		buildah commit -q --rm "$container" "$BUILD_BASE" >/dev/null
	fi
fi
scripts/deps.sh yyjson # so that the build needs no package index
cache=--layers
[ "${IMAGE_CACHE:-}" != no ] || cache=--no-cache
nice buildah bud --isolation chroot "$cache" --timestamp "$SOURCE_DATE_EPOCH" --build-arg "BUILD_BASE=$BUILD_BASE" --target cpu \
	-t "$name" -f manifests/image/Dockerfile . >build/image.log 2>&1 || { tail -n 20 build/image.log >&2; echo "image: the build failed" >&2; exit 1; }
buildah inspect --type image --format "$name {{.FromImageID}}" "$name"
