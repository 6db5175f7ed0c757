#!/bin/bash
# Runs ditrun under Slurm's own daemons: slurmctld, munged and four slurmd over the loopback, each a node of this host.
#   test/slurm.sh [--install]        (npm run build before)
# --install gets Debian's slurmctld, slurmd, slurm-client and munge where they are not. Where that cannot be, or the daemons do not
# start, it says so in a line and ends with 0. Once they run, what ditrun does wrong ends it with 1.
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH=$PATH:/usr/sbin:/sbin

skip() {
  echo "Skipped: $1."
  exit 0
}
missing() { ! command -v slurmctld slurmd srun sbatch scancel munged >/dev/null; }

if missing && [ "${1:-}" = --install ] && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
  export DEBIAN_FRONTEND=noninteractive
  # A run level in which Debian starts no service: the daemons below are all that is wanted.
  { timeout 60 apt-get update -qq &&
    RUNLEVEL=1 timeout 120 apt-get install -y -qq --no-install-recommends slurmctld slurmd slurm-client munge; } >/dev/null 2>&1 ||
    skip "Debian's Slurm cannot be installed here"
fi
if missing; then skip "there is no Slurm here (slurmctld, slurmd, srun and munged); --install gets Debian's as root"; fi

folder=$(mktemp -d)
chmod 755 "$folder"
daemons=()
stop() {
  # The controller first, so that it does not miss its nodes.
  for pid in "${daemons[@]}"; do kill "$pid" 2>/dev/null || true; done
  for pid in "${daemons[@]}"; do
    for _ in $(seq 50); do kill -0 "$pid" 2>/dev/null && sleep 0.1 || break; done
    kill -KILL "$pid" 2>/dev/null || true
  done
  wait
  rm -rf "$folder"
}
trap stop EXIT
trap 'exit 143' TERM INT HUP

host=$(hostname -s)
port=$(shuf -i 20000-29000 -n 1)
export SLURM_CONF=$folder/slurm.conf
cat >"$SLURM_CONF" <<EOF
ClusterName=ditrun
SlurmctldHost=$host(127.0.0.1)
SlurmUser=$(id -un)
SlurmdUser=$(id -un)
SlurmctldPort=$port
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket=$folder/munge.socket
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool-%n
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd-%n.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
ReturnToService=2
MailProg=/bin/true
GresTypes=gpu
$(for node in 1 2 3 4; do
  echo "NodeName=n$node NodeHostname=$host NodeAddr=127.0.0.1 Port=$((port + node)) CPUs=32 Gres=gpu:8 State=UNKNOWN"
done)
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
EOF
# The examples ask for GPUs: files stand for them, which nobody opens.
echo "Name=gpu File=$folder/gpu[0-7]" >"$folder/gres.conf"
touch "$folder"/gpu{0,1,2,3,4,5,6,7}
mkdir "$folder/state" "$folder"/spool-n{1,2,3,4}
head -c 128 /dev/urandom >"$folder/munge.key"
chmod 600 "$folder/munge.key"

# In the foreground, so that they are this script's own to wait for, also where there is no init.
daemon() {
  "$@" >>"$folder/daemons.log" 2>&1 &
  daemons+=($!)
}
daemon munged --foreground --force --key-file="$folder/munge.key" --socket="$folder/munge.socket" \
  --pid-file="$folder/munged.pid" --log-file="$folder/munged.log" --seed-file="$folder/munged.seed"
for _ in $(seq 50); do [ -S "$folder/munge.socket" ] || sleep 0.1; done
daemon slurmctld -D
for node in 1 2 3 4; do daemon slurmd -D -N "n$node"; done

# All nodes must run a step; srun waits until they are there.
timeout 60 srun --nodes=4 --ntasks-per-node=1 true >"$folder/first.log" 2>&1 ||
  skip "Slurm's daemons do not run here ($(tail -n 1 "$folder/first.log"))"

SLURM_NODES=4 timeout --kill-after=10 300 npx vitest run test/jobs/slurm.test.ts
