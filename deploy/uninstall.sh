#!/usr/bin/env bash
# Stop the services and remove the program. The ledger, its backups and the settings stay.
#
#   uninstall.sh [--root DIR] [--no-systemd] [--dry-run]

set -euo pipefail
here=$(cd "$(dirname "$(readlink -f "$0")")" && pwd)
# shellcheck source-path=SCRIPTDIR source=lib.sh
source "$here/lib.sh"

remove_units() {
    local unit
    for unit in "${UNITS[@]}"; do
        [[ -n $no_systemd ]] || systemctl disable --quiet "$unit" || true
        rm -f -- "$units/$unit.service"
    done
    [[ -n $no_systemd ]] || systemctl daemon-reload
}

parse "$@"
((${#rest[@]} == 0)) || refuse "what is '${rest[0]}'? --help shows how it is called"
begin
needs_installation

step "stop ${UNITS[*]}" stop_services
step "remove their units from $units" remove_units
step "remove $command_link and $home" rm -rf -- "$command_link" "$home"
say "what stays: the ledger $state, its backups $backups, the settings $config; remove them yourself if you mean it"
