#!/usr/bin/env bash
#SBATCH --job-name=flexray
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --gpus-per-node=1
#SBATCH --mem=64G
#SBATCH --time=10:00:00
#SBATCH --signal=B:USR1@120
#SBATCH --requeue
#SBATCH --open-mode=append
# Ray on the nodes of one Slurm job, for one command of flexray; the job ends with its exit code.
#
#   sbatch cluster/slurm.sh run my.yaml
#   sbatch --nodes=8 --partition=gpu cluster/slurm.sh nightly recipes/
#
# Submit it from the project's folder, or name that in FLEXRAY_DIR; its .venv is on all nodes. Two minutes before the
# time is up, and when it is preempted, flexray is stopped and the job queued again: it goes on with what is not
# committed. Slurm sends `scancel` to Ray, too; `scancel --batch --signal=TERM JOB` lets flexray end first.
set -euo pipefail

[ $# -ge 1 ] || { sed -n '12,15s/^# \{0,1\}//p' "$0" >&2; exit 2; }
: "${SLURM_JOB_ID:?start it with sbatch}" "${SLURM_JOB_NODELIST:?}"

cd "${FLEXRAY_DIR:-$SLURM_SUBMIT_DIR}"
PATH=$PWD/.venv/bin:$PATH
mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
# Of this job's own, as others may be on the same nodes, and none of Ray's workers' (10002 to 19999).
port=$((20000 + SLURM_JOB_ID % 2500 * 4))

# Who reaches Ray's ports can run code: only this job has the token.
RAY_AUTH_TOKEN=$(od -An -N32 -tx1 /dev/urandom | tr -d ' \n')
export RAY_AUTH_TOKEN RAY_AUTH_MODE=token RAY_ADDRESS=${nodes[0]}:$port RAY_USAGE_STATS_ENABLED=0

# What Slurm gives to a node; Ray would take all of the machine.
node=(--block --num-cpus="${SLURM_CPUS_PER_TASK:-$SLURM_CPUS_ON_NODE}" --dashboard-agent-listen-port=$((port + 2)))
[ -z "${SLURM_GPUS_ON_NODE:-}" ] || node+=(--num-gpus="$SLURM_GPUS_ON_NODE")
[ -z "${SLURM_MEM_PER_NODE:-}" ] || node+=(--object-store-memory=$((SLURM_MEM_PER_NODE * 1024 * 1024 / 4)))

steps=()  # srun of the head and of the workers
child=''  # what runs now
signal='' # and what it was stopped by
passed='' # whether it was told
code=0    # and what it ended with

on() { # on NODES NAMES COMMAND: a step that stays, with all that the job has on these nodes
    env -u RAY_ADDRESS srun --overlap --cpu-bind=none --nodes="$1" --ntasks="$1" --ntasks-per-node=1 \
        --cpus-per-task="${SLURM_CPUS_PER_TASK:-$SLURM_CPUS_ON_NODE}" --nodelist="$2" "${@:3}" &
    steps+=($!)
}

run() { # run COMMAND ..: to its end; a signal is passed on to it
    [ -z "$signal" ] || { code=143 && return 0; }
    "$@" &
    child=$!
    pass_on
    # A signal interrupts `wait`, which then does not tell how the command ended.
    while interrupted='' && code=0; wait "$child" || code=$?; [ -n "$interrupted" ]; do :; done
    child=''
}

# shellcheck disable=SC2329 # called by run
await_nodes() {
    exec python - "${#nodes[@]}" "${steps[@]}" << 'EOF'
import os, socket, sys, time
import ray

wanted, steps, deadline = int(sys.argv[1]), [int(pid) for pid in sys.argv[2:]], time.monotonic() + 300
host, port = os.environ["RAY_ADDRESS"].rsplit(":", 1)
while True:
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
        break
    except OSError:
        if time.monotonic() > deadline or not all(os.path.exists(f"/proc/{pid}") for pid in steps):
            sys.exit("error: Ray's head has not started; what it said is above")
        time.sleep(1)
while True:  # the port is there before the node is
    try:
        ray.init(address="auto", log_to_driver=False, logging_level="ERROR")
        break
    except ConnectionError:
        if time.monotonic() > deadline:
            sys.exit("error: Ray's head does not answer; what it said is above")
        time.sleep(1)
while (there := sum(node["Alive"] for node in ray.nodes())) < wanted:
    if time.monotonic() > deadline:
        sys.exit(f"error: {there} of {wanted} nodes have joined Ray within 5 minutes; what they said is above")
    time.sleep(1)
print(f"Ray runs on {wanted} nodes")
EOF
}

# shellcheck disable=SC2329 # called by a trap
stop() { # stop SIGNAL
    signal=$1 interrupted=yes
    pass_on
}

pass_on() { # once: a second signal would cut flexray short
    [ -n "$signal" ] && [ -n "$child" ] && [ -z "$passed" ] || return 0
    passed=yes
    kill -TERM "$child" 2> /dev/null || true
}

# shellcheck disable=SC2329 # called by a trap
end() { # the workers first: without a head they would wait for it
    local i
    for ((i = ${#steps[@]} - 1; i >= 0; i--)); do
        kill -TERM "${steps[i]}" 2> /dev/null || true
        wait "${steps[i]}" || true
    done
}

trap end EXIT
trap 'stop TERM' TERM INT
trap 'stop USR1' USR1

on 1 "${nodes[0]}" ray start --head --port="$port" --ray-client-server-port=$((port + 1)) --include-dashboard=false \
    --temp-dir="/tmp/ray-$SLURM_JOB_ID" "${node[@]}"
if [ ${#nodes[@]} -gt 1 ]; then
    others=$(IFS=, && echo "${nodes[*]:1}")
    on $((${#nodes[@]} - 1)) "$others" ray start --address="$RAY_ADDRESS" "${node[@]}"
fi
run await_nodes
[ -n "$signal" ] || [ $code = 0 ] || exit 1
run flexray "$@"
if [ "$signal" = USR1 ] && [ $code = 143 ]; then
    echo "the time is up: queued again, to go on with what is not committed"
    scontrol requeue "$SLURM_JOB_ID"
fi
exit $code
