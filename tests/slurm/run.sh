#!/usr/bin/env bash
# A real SLURM of one node on loopback, and `repbench sweep --launcher slurm` on it. Not part of the ordinary tests: it
# installs Debian packages and starts daemons, so it needs root on a Debian machine that may be changed (a container).
#
#     PYTHON=.venv/bin/python tests/slurm/run.sh
#
# PYTHON has repbench with the extra `slurm`. Configuration, keys, logs and records lie in a temporary folder, which is
# removed at the end unless KEEP=1; the daemons are ended by their process ids.
set -euo pipefail

python=$(cd "$(dirname "${PYTHON:-.venv/bin/python}")" && pwd)/$(basename "${PYTHON:-.venv/bin/python}")
work=$(mktemp -d)
chmod 755 "$work"
daemons=()

step() { printf '\n== %s (%ss)\n' "$1" "$SECONDS"; }

finish() {
    local code=$?
    for pid in "${daemons[@]}"; do kill "$pid" 2>/dev/null || true; done
    for pid in "${daemons[@]}"; do wait "$pid" 2>/dev/null || true; done
    if [ "$code" -ne 0 ]; then
        for log in "$work"/*.log; do printf -- '-- %s\n' "$log"; tail -n 20 "$log"; done
    fi
    if [ "${KEEP:-0}" = 1 ]; then echo "kept: $work"; else rm -rf "$work"; fi
    exit "$code"
}
trap finish EXIT

free_port() { "$python" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }

until_true() { # SECONDS COMMAND…
    local tries=$1
    shift
    until "$@" >/dev/null 2>&1; do
        tries=$((tries - 1))
        if [ "$tries" -le 0 ]; then echo "gave up waiting for: $*" >&2; return 1; fi
        sleep 1
    done
}

step "install slurm-wlm and munge"
if ! command -v slurmctld slurmd munged >/dev/null; then
    apt-get update -qq
    # The packages' own services are not wanted: ours are started below.
    printf '#!/bin/sh\nexit 101\n' >"$work/policy-rc.d"
    if [ ! -e /usr/sbin/policy-rc.d ]; then install -m 755 "$work/policy-rc.d" /usr/sbin/policy-rc.d; ours=1; fi
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends slurm-wlm munge >"$work/apt.log"
    if [ "${ours:-0}" = 1 ]; then rm -f /usr/sbin/policy-rc.d; fi
fi
slurmctld -V

step "start munged, slurmctld, slurmd"
mkdir -p "$work/munge" "$work/state" "$work/spool"
chmod 755 "$work/munge"
dd if=/dev/urandom of="$work/munge/key" bs=1024 count=1 status=none
chmod 600 "$work/munge/key"
node=$(hostname -s)
cat >"$work/slurm.conf" <<CONF
ClusterName=loopback
SlurmctldHost=$node(127.0.0.1)
SlurmUser=root
SlurmdUser=root
SlurmctldPort=$(free_port)
SlurmdPort=$(free_port)
AuthType=auth/munge
AuthInfo=socket=$work/munge/socket
CredType=cred/munge
StateSaveLocation=$work/state
SlurmdSpoolDir=$work/spool
SlurmctldPidFile=$work/slurmctld.pid
SlurmdPidFile=$work/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
ReturnToService=2
KillWait=10
NodeName=$node NodeAddr=127.0.0.1 CPUs=$(nproc --all) RealMemory=$(awk "/^MemTotal/ {print int(\$2 / 1200)}" /proc/meminfo) State=UNKNOWN
PartitionName=short Nodes=$node Default=YES MaxTime=60 State=UP
CONF
export SLURM_CONF="$work/slurm.conf"
munged --foreground --force --key-file="$work/munge/key" --socket="$work/munge/socket" \
    --pid-file="$work/munge/pid" --log-file="$work/munged.log" --seed-file="$work/munge/seed" 2>>"$work/munged.log" &
daemons+=($!)
until_true 20 test -S "$work/munge/socket"
slurmctld -D -f "$SLURM_CONF" >"$work/slurmctld.log" 2>&1 &
daemons+=($!)
until_true 30 scontrol ping
slurmd -D -N "$node" -f "$SLURM_CONF" >"$work/slurmd.log" 2>&1 &
daemons+=($!)
until_true 30 sh -c 'sinfo -h -o %T | grep -qx idle'
sinfo

step "the plan, on this machine and through SLURM"
mkdir -p "$work/plugins"
cat >"$work/plugins/broken.py" <<'PY'
def boom(*, checkpoint=None, seed=0):
    raise ValueError("this one is broken")
PY
cat >"$work/plugins/slow.py" <<'PY'
import os, pathlib, time
from repbench.testing.fakes import Envelope

class Slow(Envelope):
    """An envelope that takes a second a batch in a task of an array, and notes its process."""

    def forward(self, waveforms, lengths):
        place = os.environ.get("SLOW_PARTS")
        if place and len(lengths) > 2 and "SLURM_ARRAY_TASK_ID" in os.environ:
            with (pathlib.Path(place) / os.environ["SLURM_ARRAY_TASK_ID"]).open("a") as file:
                file.write(f"{os.getpid()}\n")
            time.sleep(1)
        return super().forward(waveforms, lengths)

def slow(*, checkpoint=None, seed=0):
    return Slow(hop_samples=160).eval()
PY
export PYTHONPATH="$work/plugins${PYTHONPATH:+:$PYTHONPATH}" REPBENCH_CACHE="$work/cache" OMP_NUM_THREADS=1
"$python" -c 'import sys, pathlib; from repbench.testing import tone_corpus; tone_corpus(pathlib.Path(sys.argv[1]))' "$work/tones"
cat >"$work/plan.yaml" <<'YAML'
upstreams: [mel, "py:repbench.testing.fakes:envelope", {name: "py:broken:boom", label: broken}]
downstreams: [phone, speaker]
corpora: [tones]
seeds: [0, 1]
set: ["probe.steps=40"]
slurm: {partition: short, timeout_min: 10, cpus_per_task: 1, mem_gb: 1}
YAML
cd "$work"
sweep() { # OUT LAUNCHER EXPECTED-CODE
    local code=0
    "$python" -m repbench sweep plan.yaml --out "$1" --launcher "$2" --json >"$work/$1-$2.json" || code=$?
    if [ "$code" -ne "$3" ]; then echo "exit code $code, not $3" >&2; return 1; fi
    echo "$2 sweep into $1: exit code $code, as expected of a plan with a broken upstream"
}
sweep local local 5
REPBENCH_CACHE="$work/cache-slurm" sweep cluster slurm 5
mv cluster-slurm.json first.json

step "again: only what is missing"
REPBENCH_CACHE="$work/cache-slurm" sweep cluster slurm 5

step "an array of four extracts the features, and one of the four is killed"
mkdir -p parts
sed -e 's/^upstreams: .*/upstreams: [mel, "py:slow:slow"]/' -e 's/"probe.steps=40"/"probe.steps=40", "extraction.batch_seconds=5"/' \
    plan.yaml >alone.yaml
{ cat alone.yaml; echo "shards: 4"; } >array.yaml
REPBENCH_CACHE="$work/cache-alone" "$python" -m repbench sweep alone.yaml --out alone --json >alone.json
SLOW_PARTS="$work/parts" REPBENCH_CACHE="$work/cache-array" \
    "$python" -m repbench sweep array.yaml --out array --launcher slurm --json >array.json 2>array.log &
sweeper=$!
until_true 900 test -s parts/2
kill -KILL "$(tail -n 1 parts/2)"
code=0
wait "$sweeper" || code=$?
grep 'features in 4 parts' array.log
grep 'note: .*part 3/4 failed (7): The process was ended by SIGKILL' array.log
echo "exit code $code after SIGKILL of a part"
test "$code" -eq 0

step "a job that is cancelled is not waited for"
sed -e 's/^seeds: .*/seeds: [2]/' -e 's/probe.steps=40/probe.steps=1000000/' plan.yaml >long.yaml
"$python" -m repbench sweep long.yaml --out cancelled --launcher slurm --json >cancelled.json 2>cancelled.log &
sweeper=$!
until_true 300 sh -c 'squeue -h -t running -o %i | grep -q .'
scancel --user root
code=0
wait "$sweeper" || code=$?
echo "exit code $code after scancel"
test "$code" -eq 7
until_true 60 sh -c '! squeue -h | grep -q .'

step "check the records"
"$python" - "$work" <<'PY'
import json, sys
from pathlib import Path

from repbench.benchmark.pipeline.existing_records import identity_of
from repbench.benchmark.records.record import digest_of, read_record, record_paths

work = Path(sys.argv[1])


def answers(folder):
    found = {}
    for path in record_paths(work / folder):
        record = read_record(path)
        assert digest_of(record.as_dict()) == record.id, path
        assert identity_of(record) not in found, f"{path} is there twice"
        values = {name: metric.value for name, metric in record.metrics.items()}
        found[identity_of(record)] = (values, (path.parent / "predictions.jsonl").read_bytes())
    return found


here, there = answers("local"), answers("cluster")
assert len(here) == 8, len(here)
assert here == there, "the cluster's records differ from this machine's"
from repbench.benchmark.features.shards import current_entries, read_index


def stored(cache):
    shards = [read_index(path) for path in (work / cache / "features").glob("*/*.shard")]
    return {(key, entries[0][1].batch, entries[0][1].sha256) for key, entries in current_entries(shards).items()}


assert answers("alone") == answers("array") and len(answers("array")) == 8, len(answers("array"))
assert stored("cache-alone") == stored("cache-array") != set()
tasks = sorted(path.name for path in (work / "array" / ".slurm").glob("*_*_0_log.out"))
assert len(tasks) == 8, tasks
print(f"{len(stored('cache-array'))} layers stored by two arrays of four, one task killed: the bits of one process")
first, again = (json.loads((work / name).read_text()) for name in ("first.json", "cluster-slurm.json"))
assert len(first["made"]) == 8 and again["made"] == [] and sorted(again["records"]) == sorted(first["made"])
for row in first["failed"]:
    print("failed, as it should:", row["label"], row["downstream"], row["exit_code"], row["error"])
cancelled = json.loads((work / "cancelled.json").read_text())
print("cancelled:", *sorted({row["error"].partition(" (file")[0] for row in cancelled["failed"]}), sep="\n  ")
print(f"{len(there)} records through SLURM, equal to those of this machine in metrics and predictions; none doubled")
PY
