#!/usr/bin/env bash
# Go back to a release that is still there: the previous one, or VERSION.
#
#   rollback.sh [VERSION] [--root DIR] [--no-systemd] [--health-limit-s SECONDS] [--dry-run]
#
# A release that cannot read the ledger, because a newer one has changed its shape, is refused: nothing is changed.

set -euo pipefail
here=$(cd "$(dirname "$(readlink -f "$0")")" && pwd)
# shellcheck source-path=SCRIPTDIR source=lib.sh
source "$here/lib.sh"

parse "$@"
((${#rest[@]} <= 1)) || refuse "what is '${rest[1]}'? --help shows how it is called"
begin
needs_installation
version=${rest[0]:-$(version_of "$previous" || true)}
[[ -n $version ]] || die "there is no previous release"
[[ $version != "$(version_of "$current")" ]] || die "$version is the current release already"
is_complete "$version" || die "there is no working release $version in $releases; there are: $(
    cd "$releases" && printf '%s\n' */.complete | sed 's#/.complete##' | paste -sd ' ')"
reads_ledger "$version" ||
    die "release $version cannot read the ledger as it is now; nothing was changed. A ledger that it can read may be in" \
        "$backups: see 'gpuledger restore'"

step "back the ledger up into $backups, and keep the newest $KEPT" back_up "$version"
step "read the files of $version once" warm_up "$version"
step "change from $(version_of "$current") to $version" change_to "$version"
say "done: $(version_of "$current") is the current release"
