# shellcheck shell=bash disable=SC2034,SC2154 # variables of one file are used in another
# What install.sh, update.sh, rollback.sh and uninstall.sh share.
#
#   /opt/gpuledger/releases/<version>   an environment per release, with these scripts and the units it came with
#   /opt/gpuledger/current, previous    links to releases; `current` is replaced by a rename
#   /etc/gpuledger/config.toml          the settings, for the services and for whoever asks on this machine
#   /var/lib/gpuledger                  the ledger; no script here writes into it
#   /var/lib/gpuledger-backups          a backup from before each change of the release, the newest five
#
# Nothing is decided by a function's output being empty, and every function that may fail is written for callers
# inside `if`, where bash ignores `set -e`: it returns by `|| return`.

UNITS=(gpuledger-collector gpuledger-mcp)
KEPT=5
STOP_LIMIT_S=50
GAP_LIMIT_S=2

root='' no_systemd='' no_start='' dry_run='' wheel='' version='' index_url='' python=python3 health_limit_s=60

say() { printf 'gpuledger: %s\n' "$*"; }

die() {
    printf 'gpuledger: %s\n' "$*" >&2
    exit 1
}

usage() {
    sed -n '2,/^$/s/^# \{0,1\}//p' "$0"
    exit "$1"
}

refuse() { # refuse SENTENCE: it cannot be done as it was asked
    printf 'gpuledger: %s\n' "$*" >&2
    exit 2
}

step() { # step SENTENCE COMMAND...: do it, or in a dry run only say it
    local sentence=$1
    shift
    if [[ -n $dry_run ]]; then
        say "would $sentence"
    else
        say "$sentence"
        "$@"
    fi
}

parse() { # parse ARGUMENT...: the options of all four scripts, into the variables above; what is left into `rest`
    rest=()
    while (($#)); do
        case $1 in
        --no-systemd) no_systemd=1 ;;
        --no-start) no_systemd=1 no_start=1 ;;
        --dry-run) dry_run=1 ;;
        -h | --help) usage 0 ;;
        --root | --wheel | --version | --index-url | --python | --health-limit-s)
            (($# > 1)) || refuse "$1 needs a value"
            declare -g "$(option_variable "$1")=$2"
            shift
            ;;
        -*) refuse "there is no option $1; --help shows those there are" ;;
        *) rest+=("$1") ;;
        esac
        shift
    done
    set_places
}

option_variable() {
    local name=${1#--}
    echo "${name//-/_}"
}

set_places() {
    [[ -z $root ]] || root=$(realpath -m -- "$root")
    [[ -z $root || -n $no_systemd ]] ||
        refuse "the units in $root are none of this machine's systemd: give --no-systemd with --root"
    home=$root/opt/gpuledger
    releases=$home/releases
    current=$home/current
    previous=$home/previous
    config=$root/etc/gpuledger/config.toml
    state=$root/var/lib/gpuledger
    backups=$root/var/lib/gpuledger-backups
    units=$root/etc/systemd/system
    logs=$root/var/log/gpuledger
    pids=$root/run/gpuledger
    command_link=$root/usr/local/bin/gpuledger
    as_user=()
    [[ -n $root ]] || as_user=(setpriv --reuid gpuledger --regid gpuledger --clear-groups --)
}

begin() { # begin: whether this user may, and alone
    [[ -n $root ]] || ((EUID == 0)) || die "run it as root, or with --root DIR for a place of your own"
    [[ -z $dry_run ]] || return 0
    mkdir -p "$home"
    exec 9>"$home/.lock"
    flock -n 9 || die "another of these scripts is at work in $home"
}

needs_installation() {
    [[ -L $current ]] || die "gpuledger is not installed in $home: run install.sh first"
}

as_service() { "${as_user[@]}" "$@"; } # as_service COMMAND...: as the user whose ledger it is

make_user() {
    id gpuledger >/dev/null 2>&1 ||
        useradd --system --user-group --home-dir "$state" --no-create-home --shell /usr/sbin/nologin gpuledger
}

make_folders() {
    mkdir -p "$(dirname "$config")" "$state" "$backups" "$logs" "$pids" "$units" "$(dirname "$command_link")"
    chmod 0750 "$state" "$backups"
    [[ -n $root ]] || chown gpuledger: "$state" "$backups"
    [[ -e $config ]] || write_config
}

write_config() {
    cat >"$config" <<END
# Settings of gpuledger on this machine: \`gpuledger config\` shows them all, docs/reference/settings.md explains them.
# After a change: systemctl restart gpuledger-collector gpuledger-mcp
data = "$state"
END
}

# --- releases -----------------------------------------------------------------------------------------------------

wanted_release() { # into `version` and `requirement`: what was asked for by --wheel or --version
    if [[ -n $wheel ]]; then
        [[ -f $wheel ]] || refuse "there is no wheel $wheel"
        local name=${wheel##*/}
        [[ $name == gpuledger-*.whl ]] || refuse "$name is no wheel of gpuledger"
        name=${name#gpuledger-}
        [[ -z $version || $version == "${name%%-*}" ]] || refuse "$wheel is not of version $version"
        version=${name%%-*}
        requirement=$(realpath -- "$wheel")
    else
        [[ -n $version ]] || refuse "say what to install: --wheel FILE, or --version VERSION from the package index"
        requirement="gpuledger==$version"
    fi
    [[ $version =~ ^[0-9][0-9A-Za-z.+!]*$ ]] || refuse "'$version' is no version"
}

version_of() { # version_of LINK
    local release
    release=$(readlink -- "$1") || return
    echo "${release##*/}"
}

is_complete() { [[ -e $releases/$1/.complete ]]; }

make_release() { # make_release VERSION: its environment, whole or not counted
    local release=$releases/$1
    if is_complete "$1"; then
        say "release $1 is there already and used as it is"
        return 0
    fi
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
        die "$python is older than Python 3.11: name another with --python"
    rm -rf -- "$release"
    mkdir -p "$releases"
    local pip=("$release/bin/pip") without=()
    if "$python" -m pip --version >/dev/null 2>&1; then # to unpack another pip takes longer than all the rest
        pip=("$python" -m pip --python "$release/bin/python") without=(--without-pip)
    fi
    "$python" -m venv "${without[@]}" "$release" ||
        die "no environment could be made with $python (on Debian: apt install python3-venv)"
    "${pip[@]}" install --quiet --disable-pip-version-check \
        ${index_url:+--index-url "$index_url"} "$requirement" || die "$requirement could not be installed"
    [[ $("$release/bin/gpuledger" --version) == "gpuledger $1" ]] || die "$requirement is not version $1"
    mkdir "$release/deploy"
    cp -R -- "$here"/. "$release/deploy"
    touch "$release/.complete"
}

switch_to() { # switch_to VERSION: at every moment `current` is one release or the other
    local release=$releases/$1
    local before
    before=$(version_of "$current") || before=''
    write_units "$release/deploy/systemd" || return
    if [[ -n $before && $before != "$1" ]]; then
        point "$previous" "$releases/$before" || return
    fi
    point "$current" "$release"
}

point() { # point LINK TARGET
    ln -sfn -- "$2" "$1.new" && mv -T -- "$1.new" "$1"
}

write_units() { # write_units FOLDER: the units, with the paths of this root
    local unit
    for unit in "${UNITS[@]}"; do
        sed "s#/opt/gpuledger#$home#g; s#/etc/gpuledger/config.toml#$config#g" "$1/$unit.service" \
            >"$units/$unit.service" || return
    done
    [[ -n $no_systemd ]] || systemctl daemon-reload
}

forget_old_releases() { # the newest five stay, and what `current` and `previous` are
    local release
    find "$releases" -mindepth 1 -maxdepth 1 -type d -printf '%T@ %f\n' | sort -rn | tail -n +$((KEPT + 1)) |
        while read -r _ release; do
            [[ $release == "$(version_of "$current")" || $release == "$(version_of "$previous")" ]] ||
                rm -rf -- "${releases:?}/$release"
        done
}

# --- the ledger ---------------------------------------------------------------------------------------------------

read_settings() { # into `settings`: as the current release reads them
    settings=$("$current/bin/gpuledger" config --csv --config "$config" | tr -d '\r"')
}

setting() { sed -n "s/^$1,//p" <<<"$settings"; } # setting NAME, after read_settings

reads_ledger() { # reads_ledger VERSION: whether that release can; it only looks
    local code=0
    as_service "$releases/$1/bin/gpuledger" status --config "$config" >/dev/null || code=$?
    ((code == 0 || code == 3 || code == 5)) # 3: nothing recorded yet; 5: nothing records just now
}

back_up() { # back_up VERSION: before the change to it; links, as long as it is one file system
    local data
    read_settings
    data=$(setting data)
    if [[ ! -e $data/head.sqlite ]]; then
        say "there is no ledger in $data yet, so nothing to back up"
        return 0
    fi
    backup=$backups/$(date -u +%Y%m%dT%H%M%S.%3NZ)-before-$1
    as_service "$current/bin/gpuledger" backup "$backup" --config "$config" ||
        die "no whole backup could be taken: 'gpuledger verify' tells more; nothing was changed"
    find "$backups" -mindepth 1 -maxdepth 1 -type d -name '*-before-*' | sort -r | tail -n +$((KEPT + 1)) |
        while read -r old; do rm -rf -- "$old"; done
}

tell_gap() { # tell_gap SINCE: the longest time without a sample since then, by the ledger itself
    local seconds
    [[ -z $no_start ]] || return 0
    seconds=$(as_service "$current/bin/gpuledger" sql --csv --config "$config" "
        select round(max(seconds), 2) as seconds from (
            select epoch(observed_at) - lag(epoch(observed_at)) over (order by observed_at) as seconds
            from system_sample where epoch(observed_at) > $1)" | tr -d '\r' | tail -n 1) || seconds=''
    if [[ ! $seconds =~ ^[0-9.]+$ ]]; then
        say "how long nothing was recorded cannot be told: the ledger has no samples from before and after"
        return 0
    fi
    say "between the last sample before and the first after lie $seconds s"
    if "$current/bin/python" -I -c "raise SystemExit(not $seconds > $GAP_LIMIT_S)"; then
        say "warning: that is more than $GAP_LIMIT_S s; a busy machine or a slow disk makes it so"
    fi
}

# --- services -----------------------------------------------------------------------------------------------------

start() { # start UNIT
    if [[ -z $no_systemd ]]; then
        systemctl enable --quiet "$1" && systemctl start "$1"
        return
    fi
    local words
    read -ra words < <(sed -n 's/^ExecStart=//p' "$units/$1.service")
    setsid "${as_user[@]}" "${words[@]}" >>"$logs/$1.log" 2>&1 </dev/null 9>&- &
    echo $! >"$pids/$1.pid"
}

pid_of() { # pid_of UNIT: of the process that runs without systemd; fails where none does
    local pid
    pid=$(cat "$pids/$1.pid" 2>/dev/null) || return
    tr '\0' ' ' 2>/dev/null <"/proc/$pid/cmdline" | grep -qF -e "$releases/" -e "$current/" && echo "$pid"
}

is_running() { # is_running UNIT
    if [[ -z $no_systemd ]]; then
        systemctl is-active --quiet "$1"
    else
        pid_of "$1" >/dev/null
    fi
}

stop() { # stop UNIT: and wait until it has ended
    if [[ -z $no_systemd ]]; then
        systemctl stop "$1"
        return
    fi
    local pid deadline_s=$((SECONDS + STOP_LIMIT_S))
    pid=$(pid_of "$1") || return 0
    kill -TERM "$pid"
    while pid_of "$1" >/dev/null; do
        ((SECONDS < deadline_s)) || kill -KILL "$pid"
        sleep 0.05
    done
    rm -f "$pids/$1.pid"
}

restart_services() { # the collector first, and the other one only when it records: they need not share the start
    local unit
    [[ -z $no_start ]] || return 0
    read_settings || return
    for unit in "${UNITS[@]}"; do
        stop "$unit" && is_free "$unit" && start "$unit" && answers_in_time "$unit" || return
    done
}

is_free() { # is_free UNIT: whether nothing answers in its place: an answer would be taken for its own
    local url
    for url in $(urls "$1"); do
        answers "$url" || continue
        say "$1 cannot be started: something else answers at $url"
        return 1
    done
}

stop_services() {
    local unit
    for unit in "${UNITS[@]}"; do stop "$unit"; done
}

urls() { # urls UNIT: what must answer 200; the server's /healthz opens the ledger, so it is its readiness, too
    local section=${1#gpuledger-} host port
    host=$(setting "$section.host")
    port=$(setting "$section.port")
    case $host in
    0.0.0.0) host=127.0.0.1 ;;
    ::) host='[::1]' ;;
    *:*) host="[$host]" ;;
    esac
    echo "http://$host:$port/healthz"
    [[ $section != collector ]] || echo "http://$host:$port/readyz"
}

answers_in_time() { # answers_in_time UNIT: whether it is healthy before the limit; one that has ended is not
    local url deadline_s=$((SECONDS + health_limit_s))
    for url in $(urls "$1"); do
        until answers "$url"; do
            if ! is_running "$1" || ((SECONDS >= deadline_s)); then
                say "$1 is not healthy: no good answer from $url; see $(log_of "$1")"
                return 1
            fi
            sleep 0.1
        done
        say "$url answers"
    done
}

answers() { # answers URL
    "$current/bin/python" -I -c '
import sys, urllib.request
urllib.request.build_opener(urllib.request.ProxyHandler({})).open(sys.argv[1], timeout=5)' "$1" 2>/dev/null
}

log_of() { # log_of UNIT
    if [[ -z $no_systemd ]]; then echo "journalctl -u $1"; else echo "$logs/$1.log"; fi
}

# --- changing the release -----------------------------------------------------------------------------------------

warm_up() { # warm_up VERSION: its files are read before the old release stops, so that the gap is short
    "$releases/$1/bin/python" -P -c 'import collector.service, gpuledger.commands.running, gpuledger.up' ||
        die "release $1 cannot be loaded; nothing was changed"
}

change_to() { # change_to VERSION: switch, restart, look; go back by itself where it is not well
    local before earlier since
    before=$(version_of "$current")
    earlier=$(version_of "$previous") || earlier=''
    since=$("$current/bin/python" -I -c 'import time; print(time.time() - 5)')
    if switch_to "$1" && restart_services; then
        tell_gap "$since"
        return 0
    fi
    say "release $1 is not well"
    # It stays to be looked at; the next attempt at this version installs it anew.
    rm -f -- "$releases/$1/.complete"
    reads_ledger "$before" ||
        die "release $before cannot read the ledger that $1 has changed, so it was left alone, and $1 in its place." \
            "Install a release that works; the ledger from before is in ${backup:-no backup}"
    say "going back to $before"
    if ! { switch_to "$before" && restart_services; }; then
        die "release $before is not well either: see $(log_of gpuledger-collector)"
    fi
    if [[ -n $earlier ]]; then point "$previous" "$releases/$earlier"; else rm -f -- "$previous"; fi
    tell_gap "$since"
    die "release $1 was not well: $before records again"
}
