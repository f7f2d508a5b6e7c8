#!/usr/bin/env bash
# Make a Debian package of a wheel: deploy/deb/build.sh WHEEL [FOLDER]
#
# The package holds the wheel, the scripts of deploy/ and the units. Its postinst makes the release's environment with
# the Python of the machine it is installed on, by install.sh or update.sh: one package serves amd64 and arm64 and every
# Python from 3.11 on. Dependencies come from the package index that pip is set to, or from /usr/share/gpuledger/wheels.

set -euo pipefail
here=$(cd "$(dirname "$(readlink -f "$0")")" && pwd)
wheel=${1:?build.sh WHEEL [FOLDER]}
folder=${2:-.}
version=$(basename "$wheel" | cut -d - -f 2)
tree=$(mktemp -d)
trap 'rm -rf -- "$tree"' EXIT

share=$tree/usr/share/gpuledger
doc=$tree/usr/share/doc/gpuledger
install -d "$share/wheels" "$share/deploy/systemd" "$doc" "$tree/DEBIAN"
install -m 0644 "$wheel" "$share/wheels"
install -m 0755 "$here"/../*.sh "$share/deploy"
chmod 0644 "$share/deploy/lib.sh"
install -m 0644 "$here"/../systemd/*.service "$share/deploy/systemd"
install -m 0644 "$here/copyright" "$doc/copyright"
printf 'gpuledger (%s) unstable; urgency=medium\n\n  * See CHANGELOG.md of this version.\n\n -- The gpuledger authors <gpuledger@users.noreply.github.com>  %s\n' \
    "$version" "$(date -uR -d "@${SOURCE_DATE_EPOCH:-$(stat -c %Y "$wheel")}")" | gzip -9n >"$doc/changelog.gz"
install -m 0755 "$here"/postinst "$here"/prerm "$tree/DEBIAN"
sed "s/@VERSION@/$version/; s/@SIZE@/$(du -sk "$tree/usr" | cut -f 1)/" "$here/control" >"$tree/DEBIAN/control"
mkdir -p "$folder"
dpkg-deb --root-owner-group --build "$tree" "$folder/gpuledger_${version}_all.deb"
