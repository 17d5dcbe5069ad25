#!/usr/bin/env bash
# Ray on bare machines, over ssh.
#
#   cluster/up.sh up HEAD [WORKER ..]      start it; a machine on which Ray runs already is left as it is
#   cluster/up.sh down HEAD [WORKER ..]    end it, on these machines
#   cluster/up.sh status HEAD
#
# HEAD and WORKER are what ssh takes (name or user@name); HEAD's name must be one that the workers reach, too.
# Each machine has the project, with its .venv, in FLEXRAY_DIR. Ray gets the variables that ~/.flexray.env sets on
# a machine (AWS_*, FSSPEC_S3, ..), and jobs this .venv's Python. All machines get the token of this one, ~/.ray/auth_token, and one is made
# if there is none; it is never printed, nor part of a command, where other users of a machine could read it.
set -euo pipefail

FLEXRAY_DIR=${FLEXRAY_DIR:-/srv/flexray}
RAY_PORT=${RAY_PORT:-6379}
FLEXRAY_SSH=${FLEXRAY_SSH:-ssh -o BatchMode=yes -o ConnectTimeout=10}
RAY=$(dirname "$0")/../.venv/bin/ray

usage() {
    sed -n '2,7s/^# \{0,1\}//p' "$0" >&2
    exit 2
}

on() { # on MACHINE COMMAND: in the project, with Ray's and the storage's environment
    local machine=$1 command=$2 setting
    setting="set -a; RAY_AUTH_MODE=token; PATH=\$PWD/.venv/bin:\$PATH; [ ! -f ~/.flexray.env ] || . ~/.flexray.env; set +a"
    # shellcheck disable=SC2086  # FLEXRAY_SSH is a command with its options
    $FLEXRAY_SSH "$machine" "cd $(printf %q "$FLEXRAY_DIR") || exit 1; $setting; $command"
}

send_token() { # send_token MACHINE
    on "$1" 'umask 077; mkdir -p ~/.ray && cat > ~/.ray/auth_token.new && mv ~/.ray/auth_token.new ~/.ray/auth_token' \
        < ~/.ray/auth_token
}

start() { # start MACHINE OPTIONS: unless a raylet of this user runs there
    on "$1" "if pgrep -x raylet -u \"\$(id -u)\" > /dev/null; then echo '$1: Ray runs already'; \
        elif said=\$(.venv/bin/ray start $2 --disable-usage-stats --log-color=false 2>&1); then echo '$1: started'; \
        else echo \"\$said\" >&2; exit 1; fi" < /dev/null
}

up() {
    local head=$1 machine
    [ -s ~/.ray/auth_token ] || "$RAY" get-auth-token --generate > /dev/null
    for machine in "$@"; do send_token "$machine"; done
    start "$head" "--head --port=$RAY_PORT --dashboard-host=127.0.0.1"
    for machine in "${@:2}"; do start "$machine" "--address=${head#*@}:$RAY_PORT"; done
}

down() { # the workers first: without a head they would wait for it
    local machine
    for machine in "${@:2}" "$1"; do
        on "$machine" ".venv/bin/ray stop > /dev/null" < /dev/null
        echo "$machine: ended"
    done
}

status() {
    on "$1" ".venv/bin/ray status --address=127.0.0.1:$RAY_PORT" < /dev/null
}

[ $# -ge 2 ] || usage
case $1 in
    up | down | status) "$@" ;;
    *) usage ;;
esac
