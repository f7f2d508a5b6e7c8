#!/usr/bin/env bash
# Change to another release. One that is not healthy is left again, by itself.
#
#   update.sh (--wheel FILE | --version VERSION [--index-url URL]) [--python PYTHON]
#             [--root DIR] [--no-systemd | --no-start] [--health-limit-s SECONDS] [--dry-run]
#
# The new release is installed and the ledger backed up while the old one records. How long nothing was recorded is
# told at the end. Exit code 0: the new release records; 1: it does not, and what stands now is said.

set -euo pipefail
here=$(cd "$(dirname "$(readlink -f "$0")")" && pwd)
# shellcheck source-path=SCRIPTDIR source=lib.sh
source "$here/lib.sh"

has_good_settings() {
    "$releases/$version/bin/gpuledger" config --config "$config" >/dev/null ||
        die "release $version cannot use $config; nothing was changed"
}

parse "$@"
((${#rest[@]} == 0)) || refuse "what is '${rest[0]}'? --help shows how it is called"
wanted_release
begin
needs_installation
[[ $(version_of "$current") != "$version" ]] || die "$version is the current release already"

step "install $version into $releases/$version" make_release "$version"
step "see that $version can use $config" has_good_settings
step "back the ledger up into $backups, and keep the newest $KEPT" back_up "$version"
step "read the files of $version once" warm_up "$version"
step "change from $(version_of "$current") to $version, and back if it is not healthy" change_to "$version"
step "remove releases but the newest $KEPT" forget_old_releases
say "done: $(version_of "$current") is the current release"
