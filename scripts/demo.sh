#!/usr/bin/env bash
# `make demo`: a master with two replicas, the program, and a `kill -9` of the master, with what
# happens shown step by step. Everything runs on loopback in a temporary directory and is gone
# afterwards, also after Ctrl-C.
#
#   DEMO_BINARY=path   this program instead of one built here
#   DEMO_PROFILE=dev   build for development (quicker to build)
set -euo pipefail
cd "$(dirname "$0")/.."

readonly START_LIMIT_S=10 FAILOVER_LIMIT_S=10
children=()
dir=

cleanup() {
    local code=$?
    trap - EXIT
    local pid
    for pid in ${children[@]+"${children[@]}"}; do
        if ours "$pid"; then kill -9 "$pid" || true; fi
    done
    for pid in ${children[@]+"${children[@]}"}; do
        while ours "$pid"; do sleep 0.01; done
    done
    if [[ $code -ne 0 && -s $dir/program.log ]]; then
        printf '\nThe demo failed. The program logged:\n' >&2
        cat "$dir/program.log" >&2
    fi
    [[ -z $dir ]] || rm -rf "$dir"
    exit "$code"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

# Whether this process is a living child of ours: a number may be another process's by now.
ours() {
    local status
    status=$(cat "/proc/$1/status" 2>/dev/null) || return 1
    [[ $status =~ PPid:[[:space:]]+$$[[:space:]] && ! $status =~ State:[[:space:]]+Z ]]
}

title() {
    if [[ -t 1 ]]; then printf '\n\033[1m%s\033[0m\n' "$*"; else printf '\n== %s\n' "$*"; fi
}
line() { printf '  %s\n' "$*"; }
fail() {
    printf 'demo: %s\n' "$*" >&2
    exit 1
}

# Runs a command in the background as a child that the kernel ends with us, if it can.
start() {
    local log=$1
    shift
    if command -v setpriv >/dev/null; then set -- setpriv --pdeathsig KILL -- "$@"; fi
    "$@" >"$log" 2>&1 </dev/null &
    started=$!
    children+=("$started")
    # Its end is no news that the shell should print.
    disown "$started"
}

# wait_until SECONDS COMMAND...: asks every 10 ms.
wait_until() {
    local deadline=$((SECONDS + $1))
    shift
    until "$@"; do
        ((SECONDS <= deadline)) || return 1
        sleep 0.01
    done
}

ask() { redis-cli -h 127.0.0.1 -p "$1" "${@:2}" 2>/dev/null; }
info() { ask "$1" INFO "$2" | tr -d '\r'; }
get() { curl -sf --max-time 2 "http://$http$1"; }

# --- Servers -------------------------------------------------------------------------------------

# Sets `port` and `started`. A port that looks free may be taken a moment later: then the server
# ends, and another port is tried.
start_server() {
    local name=$1 attempts=0
    shift
    while ((attempts++ < 20)); do
        port=$((20000 + RANDOM % 12000))
        if (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then continue; fi
        mkdir -p "$dir/$name"
        start "$dir/$name.log" redis-server --bind 127.0.0.1 --port "$port" --dir "$dir/$name" \
            --save '' --appendonly no --repl-diskless-sync-delay 0 "$@"
        if wait_until "$START_LIMIT_S" server_decided "$port" "$started" && [[ $decided == up ]]; then
            return
        fi
        if ours "$started"; then kill -9 "$started"; fi
    done
    cat "$dir/$name.log" >&2
    fail "$name did not start"
}

# Our own process answers (`up`), or it has ended.
server_decided() {
    decided=
    if ! ours "$2"; then decided=ended; return 0; fi
    [[ $(info "$1" server) == *"process_id:$2"$'\n'* ]] && decided=up
}

in_step() {
    local offset other port
    offset=$(offset_of "${ports[0]}")
    [[ ${offset:-0} -gt 0 ]] || return 1
    for port in "${ports[@]:1}"; do
        other=$(offset_of "$port")
        [[ $other == "$offset" ]] || return 1
        [[ $(info "$port" replication) == *master_link_status:up* ]] || return 1
    done
}

offset_of() { info "$1" replication | sed -n 's/^master_repl_offset://p'; }

# --- The program ---------------------------------------------------------------------------------

program() {
    if [[ -n ${DEMO_BINARY:-} ]]; then
        readlink -f "$DEMO_BINARY"
        return
    fi
    local profile=${DEMO_PROFILE:-release} target
    cargo build -p redis-failover --bin redis-failover --profile "$profile" >&2
    target=$(cargo metadata --format-version 1 --no-deps | jq -r .target_directory)
    [[ $profile != dev ]] || profile=debug
    echo "$target/$profile/redis-failover"
}

listens() {
    ours "$monitor" || fail "the program ended"
    http=$(grep -o 'listening on 127\.0\.0\.1:[0-9]*' "$dir/program.log" | head -1)
    http=${http##* }
    [[ -n $http ]]
}

watches_all() {
    [[ $(get /v1/groups | jq '[.groups[].instances[]? | select(.state == "up")] | length') == 3 ]]
}

show_state() {
    get /v1/groups | jq -r '
        .groups[]
        | "  group \(.name): \(.status), \(.diagnosis.name // "?"), master \(.master)",
          (.instances[] | [.addr, .role, .state, "offset \(.offset // "-")", "link \(.link // "-")"]
           | "    " + join("  "))'
}

names_another() { [[ $(get /master) != "$1" ]]; }

failover_done() {
    [[ $(get '/v1/history?limit=1' | jq -r '.history[0].outcome // "running"') != running ]]
}

show_history() {
    get '/v1/history?limit=1' | jq -r '
        def ms: . * 10 | round / 10 | tostring | if length < 9 then (" " * (9 - length)) + . else . end;
        .history[0]
        | "  \(.kind) of \(.old_master) to \(.new_master): \(.outcome)",
          "  cause: \(.cause)" + (if .reason then ": \(.reason)" else "" end),
          "",
          "       ms  step",
          (.steps[] | "\(.at_ms | ms)  \(.name)" + (if .addr then "  \(.addr)" else "" end)
                      + (if .note then "  (\(.note))" else "" end))'
}

# --- The demo ------------------------------------------------------------------------------------

bash scripts/install-deps.sh redis curl jq
binary=$(program)
dir=$(mktemp -d "${TMPDIR:-/tmp}/redis-failover-demo-XXXXXX")

title 'A master and two replicas'
ports=()
start_server master
ports+=("$port")
master=127.0.0.1:$port
master_pid=$started
line "master   $master"
for name in replica-1 replica-2; do
    start_server "$name" --replicaof 127.0.0.1 "${ports[0]}"
    ports+=("$port")
    line "replica  127.0.0.1:$port"
done
ask "${ports[0]}" SET greeting hello >/dev/null
wait_until "$START_LIMIT_S" in_step || fail 'the replicas did not catch up'

title 'The program watches them'
line "redis-failover -addr=127.0.0.1:0 -masters=$master -check_interval=100 -max_down_time=1"
start "$dir/program.log" "$binary" -addr=127.0.0.1:0 "-masters=$master" -check_interval=100 \
    -max_down_time=1
monitor=$started
wait_until "$START_LIMIT_S" listens || fail 'the program does not listen'
wait_until "$START_LIMIT_S" watches_all || fail 'the program does not see all three servers'
show_state

title "kill -9 of the master, process $master_pid"
kill -9 "$master_pid"
wait_until "$FAILOVER_LIMIT_S" names_another "$master" || fail 'no new master'
wait_until "$FAILOVER_LIMIT_S" failover_done || fail 'the failover did not end'
show_history

title 'Where is the master now?   (GET /master)'
new=$(get /master)
line "$new"

title 'The new master takes writes, and has what was written before'
line "GET greeting -> $(ask "${new##*:}" GET greeting)"
line "SET greeting 'hello again' -> $(ask "${new##*:}" SET greeting 'hello again')"
show_state
title 'Done; everything that was started is stopped again.'
