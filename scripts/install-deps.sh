#!/usr/bin/env bash
# Installs the servers and tools that the tests, the benchmark and the demo start.
#
#   scripts/install-deps.sh [redis] [valkey] [iproute2] [etcd] [zookeeper] [curl] [jq] [kcov]
#                                                                        (none named: redis valkey)
#
# Made for Debian: packages through apt-get, Valkey and kcov from the release's backports where the
# release itself has none. Quick when everything is there, and safe to run twice at once. No service that a
# package brings is started, nor enabled for the next boot.
#
# iproute2 makes the networks that the tests cut apart, which only root can.
#
# What cannot be had is said loudly. That is an error (exit 1) for everything but Valkey, iproute2, etcd and
# ZooKeeper, and for them too with CI=true; without it the tests leave out what needs them and say so.
set -euo pipefail

readonly LOCK=/run/redis-failover-install-deps.lock
readonly LOCK_WAIT_S=900
readonly POLICY=/usr/sbin/policy-rc.d
readonly POLICY_SAVED=$POLICY.before-redis-failover
readonly MARK='# written by install-deps.sh of redis-failover'
readonly BACKPORTS_FILE=redis-failover-backports.sources

say() { printf 'install-deps: %s\n' "$*" >&2; }
fail() {
    say "ERROR: $*"
    exit 1
}

# --- What is needed ------------------------------------------------------------------------------

known() { case $1 in redis | valkey | iproute2 | etcd | zookeeper | curl | jq | kcov) true ;; *) false ;; esac; }

# Debian's library has the server too, and brings no service.
readonly ZOOKEEPER_JAR=/usr/share/java/zookeeper.jar

present() {
    case $1 in
        redis) command -v redis-server && command -v redis-cli ;;
        valkey) command -v valkey-server ;;
        iproute2) command -v ip ;;
        etcd) command -v etcd ;;
        zookeeper) [[ -e $ZOOKEEPER_JAR ]] && command -v java ;;
        *) command -v "$1" ;;
    esac >/dev/null
}

packages_of() {
    case $1 in
        redis) echo redis-server redis-tools ;;
        valkey) echo valkey-server ;;
        etcd) echo etcd-server ;;
        zookeeper) echo libzookeeper-java default-jre-headless ;;
        *) echo "$1" ;;
    esac
}

# The service that the package would start and enable.
service_of() {
    case $1 in
        redis) echo redis-server ;;
        valkey) echo valkey-server ;;
        etcd) echo etcd ;;
    esac
}

missing() {
    local name
    for name in "$@"; do present "$name" || echo "$name"; done
}

# --- No service is started -----------------------------------------------------------------------

# Debian's own way to say no: the install scripts of packages ask this file before they start a
# service, and 101 means "you may not".
forbid_services() {
    if [[ -e $POLICY || -L $POLICY ]] && ! grep -qsF "$MARK" "$POLICY"; then
        mv "$POLICY" "$POLICY_SAVED"
    fi
    printf '#!/bin/sh\n%s\nexit 101\n' "$MARK" >"$POLICY"
    chmod 755 "$POLICY"
}

# Also mends what a run that was killed outright left behind.
allow_services() {
    if grep -qsF "$MARK" "$POLICY"; then rm -f "$POLICY"; fi
    if [[ -e $POLICY_SAVED || -L $POLICY_SAVED ]]; then mv "$POLICY_SAVED" "$POLICY"; fi
}

# Only for packages that this run brought: a service that somebody wanted before stays as it was.
disable_service() {
    local service=$1
    deb-systemd-helper --quiet disable "$service.service" >/dev/null 2>&1 || true
    update-rc.d "$service" disable >/dev/null 2>&1 || true
}

# --- Where packages come from --------------------------------------------------------------------

# Prints an apt source for the backports of release $2, derived from the sources in $1 (an
# /etc/apt): the same place, options and keys as for the release itself, another suite. So it works
# wherever the machine gets its packages from.
backports_source() {
    local etc=$1 release=$2 file stanza line
    for file in "$etc"/sources.list.d/*.sources; do
        [[ -f $file ]] || continue
        stanza=$(awk -v release="$release" '
            BEGIN { RS = ""; FS = "\n" }
            {
                deb = wanted = off = 0
                for (i = 1; i <= NF; i++) {
                    words = tolower($i) " "
                    if (words ~ /^types:.*[ \t]deb /) deb = 1
                    if (words ~ /^enabled:[ \t]*(no|false|0) /) off = 1
                    if (words ~ "^suites:.*[ \t]" release " ") { wanted = 1; suites = i }
                }
                if (!deb || !wanted || off) next
                for (i = 1; i <= NF; i++)
                    if ($i !~ /^#/) print (i == suites) ? "Suites: " release "-backports" : $i
                exit
            }' "$file")
        [[ -n $stanza ]] && { printf '%s\n' "$stanza"; return 0; }
    done
    # The classic form, which stays one: `deb [options] URI suite components`.
    for file in "$etc"/sources.list "$etc"/sources.list.d/*.list; do
        [[ -f $file ]] || continue
        line=$(awk -v release="$release" '
            $1 == "deb" {
                at = 2
                if ($2 ~ /^\[/) while ($(at++) !~ /\]$/ && at <= NF) ;
                if ($(at + 1) == release) { $(at + 1) = release "-backports"; print; exit }
            }' "$file")
        [[ -n $line ]] && { printf '%s\n' "$line"; return 0; }
    done
    return 1
}

# Whether apt knows a version of the package that it could install.
installable() {
    local policy
    policy=$(LC_ALL=C apt-cache policy "$1" 2>/dev/null) && [[ $policy == *"  Candidate: "[!\(]* ]]
}

apt() {
    DEBIAN_FRONTEND=noninteractive apt-get -q -o DPkg::Lock::Timeout=600 "$@" >&2
}

add_backports() {
    local release source file=/etc/apt/sources.list.d/$BACKPORTS_FILE
    release=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
    [[ -n $release ]] || { say "this system does not name its release"; return 1; }
    if ! source=$(backports_source /etc/apt "$release"); then
        say "no apt source of $release found to derive $release-backports from"
        return 1
    fi
    case $source in deb\ *) file=${file%.sources}.list ;; esac
    say "adding $release-backports in $file (used only for what the release has not)"
    printf '# Derived by redis-failover, scripts/install-deps.sh; packages of it are taken only on request.\n%s\n' \
        "$source" >"$file"
    if ! apt update; then
        rm -f "$file"
        say "$release-backports cannot be read from where this machine gets its packages"
        return 1
    fi
}

# --- Installing ----------------------------------------------------------------------------------

install_one() {
    local name=$1 package
    read -ra packages <<<"$(packages_of "$name")"
    for package in "${packages[@]}"; do
        installable "$package" && continue
        [[ $name == @(valkey|kcov) ]] || return 1
        add_backports || return 1
        installable "$package" || return 1
    done
    say "installing ${packages[*]}"
    apt install --yes --no-install-recommends "${packages[@]}" || return 1
    if [[ -n $(service_of "$name") ]]; then disable_service "$(service_of "$name")"; fi
    present "$name"
}

main() {
    local name lacking=() failed=()
    [[ $# -gt 0 ]] || set -- redis valkey
    for name in "$@"; do known "$name" || { say "unknown: $name"; exit 2; }; done

    mapfile -t lacking < <(missing "$@")
    [[ ${#lacking[@]} -gt 0 ]] || exit 0

    if [[ $EUID -ne 0 ]]; then
        # With sudo that asks nothing the whole script runs again as root.
        if command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
            exec sudo -n env CI="${CI:-}" bash "${BASH_SOURCE[0]}" "$@"
        fi
        say "missing: ${lacking[*]}. Run this as root: bash scripts/install-deps.sh $*"
        settle "${lacking[@]}"
    fi
    if ! command -v apt-get >/dev/null; then
        say "missing: ${lacking[*]}. There is no apt-get here: please install them by hand"
        settle "${lacking[@]}"
    fi

    exec 9>"$LOCK"
    flock -w "$LOCK_WAIT_S" 9 || fail "another run has held $LOCK for ${LOCK_WAIT_S} s"
    # Somebody may have installed it meanwhile.
    mapfile -t lacking < <(missing "$@")
    [[ ${#lacking[@]} -gt 0 ]] || exit 0

    trap allow_services EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM HUP
    allow_services
    forbid_services
    apt update || say "apt-get update had errors; going on with the lists that are there"
    for name in "${lacking[@]}"; do install_one "$name" || failed+=("$name"); done
    [[ ${#failed[@]} -eq 0 ]] || settle "${failed[@]}"
}

# Ends the script with what could not be had.
settle() {
    local name code=0
    for name in "$@"; do
        say "**** $name IS NOT HERE AND COULD NOT BE INSTALLED ****"
        if [[ $name == @(valkey|iproute2|etcd|zookeeper) && ${CI:-} != true ]]; then
            say "**** tests that need $name will be left out ****"
        else
            code=1
        fi
    done
    exit "$code"
}

if [[ ${BASH_SOURCE[0]} == "$0" ]]; then main "$@"; fi
