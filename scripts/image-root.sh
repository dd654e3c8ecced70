#!/bin/sh
# Fill a directory with what the image holds. Usage: scripts/image-root.sh PROGRAM DIRECTORY (runs inside the build stage of
# manifests/image/Dockerfile, on Debian: dpkg names the package of each library, for its licence's notice)
set -eu
program=$1 root=$2
mkdir -p "$root/usr/bin" "$root/etc/ssl/certs" "$root/tmp"
chmod 1777 "$root/tmp"
strip -o "$root/usr/bin/tokenmill" "$program"
# Debian's /lib is a link to /usr/lib; in the image too.
for name in lib lib64; do
	[ ! -L "/$name" ] || ln -s "$(readlink "/$name")" "$root/$name"
done
ldd "$program" | awk '$2 == "=>" {print $3} $1 ~ /^\// {print $1}' | sort -u | while read -r library; do
	real=$(realpath "$library")
	target=$(realpath "$(dirname "$library")")/$(basename "$library")
	install -D -m 755 "$real" "$root$target"
	package=$(dpkg -S "$real" 2>/dev/null || dpkg -S "${real#/usr}")
	package=${package%%:*}
	install -D -m 644 "/usr/share/doc/$package/copyright" "$root/usr/share/doc/$package/copyright"
done
install -D -m 644 LICENSE "$root/usr/share/doc/tokenmill/copyright"
install -m 644 /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/ca-certificates.crt"
install -D -m 644 /usr/share/doc/ca-certificates/copyright "$root/usr/share/doc/ca-certificates/copyright"
echo 'hosts: files dns' >"$root/etc/nsswitch.conf"
printf 'root:x:0:0::/:/nonexistent\ntokenmill:x:10001:10001::/tmp:/nonexistent\n' >"$root/etc/passwd"
printf 'root:x:0:\ntokenmill:x:10001:\n' >"$root/etc/group"
# A program that does not start here does not start there.
chroot "$root" /usr/bin/tokenmill --version
