#!/usr/bin/env bash
# Install gpuledger as two services: the collector, and the MCP server over HTTP.
#
#   install.sh (--wheel FILE | --version VERSION [--index-url URL]) [--python PYTHON]
#              [--root DIR] [--no-systemd | --no-start] [--health-limit-s SECONDS] [--dry-run]
#
# --root DIR puts everything under DIR; --no-systemd starts the units' own command lines itself,
# --no-start nothing.

set -euo pipefail
here=$(cd "$(dirname "$(readlink -f "$0")")" && pwd)
# shellcheck source-path=SCRIPTDIR source=lib.sh
source "$here/lib.sh"

give_up() {
    stop_services
    rm -f -- "$current" "$releases/$version/.complete"
    die "release $version is not well, and its services are stopped; the ledger was left as it is"
}

parse "$@"
((${#rest[@]} == 0)) || refuse "what is '${rest[0]}'? --help shows how it is called"
wanted_release
begin
[[ ! -L $current ]] || die "gpuledger $(version_of "$current") is installed already: use update.sh"

[[ -n $root ]] || step "make the user gpuledger" make_user
step "install $version into $releases/$version" make_release "$version"
step "make $config, $state and $backups where they are missing" make_folders
step "make $version the current release, with its units in $units" switch_to "$version"
step "let the command gpuledger be $command_link" ln -sfn -- "$current/bin/gpuledger" "$command_link"
[[ -n $no_start ]] || step "start ${UNITS[*]} and see that they are healthy" restart_services || give_up
say "done: try 'gpuledger status --config $config'"
