"""Slurm: a controller with emulated nodes (`State=CLOUD`: they are given out without a daemon on
each), whose features are the class and the place of a container. It answers no searches: it
allocates. So it is measured by itself, by the jobs that it starts in a second while more wait than
it can start, on as many nodes as it serves: `NODES` of the fleet's."""

import os
import re
import shutil
import subprocess
import time

NODES = 10_000
# Jobs are submitted in arrays, which is what Slurm takes fastest: so many, of so many jobs.
ARRAYS, JOBS = 30, 200
# How long it starts jobs, at most.
WITHIN_S = 30.0
PROGRAMS = ("slurmctld", "munged", "sbatch", "scontrol", "sdiag")

CONF = """ClusterName=bench
SlurmctldHost={host}(127.0.0.1)
SlurmUser={user}
SlurmctldPort=16817
SlurmdPort=16818
AuthType=auth/munge
AuthInfo=socket={folder}/munge.sock
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerType=sched/backfill
SchedulerParameters=default_queue_depth=10000,partition_job_depth=0,sched_min_interval=0,sched_interval=1,bf_interval=3600
ResumeProgram=/bin/true
SuspendProgram=/bin/true
ResumeTimeout=3600
SuspendTime=86400
ResumeRate=0
SuspendRate=0
MaxArraySize=100001
MaxJobCount=200000
"""


class Slurm:
    @staticmethod
    def missing():
        absent = [name for name in PROGRAMS if not shutil.which(name, path=paths())]
        return f"no {', '.join(absent)}: `apt-get install slurmctld slurm-client`" if absent else None

    def __init__(self, folder):
        self.folder = os.path.join(folder, "slurm")
        os.makedirs(os.path.join(self.folder, "state"))
        self.env = dict(os.environ, PATH=paths(), SLURM_CONF=os.path.join(self.folder, "slurm.conf"))
        self.kinds = self.configure(os.path.join(folder, "rows.tsv"))
        key = os.path.join(self.folder, "munge.key")
        with open(os.open(key, os.O_CREAT | os.O_WRONLY, 0o600), "wb") as file:
            file.write(os.urandom(128))
        words = ["munged", "--foreground", "--force"]
        for name in ("key-file", "pid-file", "log-file", "seed-file"):
            words += [f"--{name}", os.path.join(self.folder, f"munge.{name.split('-')[0]}")]
        words += ["--socket", os.path.join(self.folder, "munge.sock")]
        self.servers = [self.start(words)]
        self.wait(lambda: os.path.exists(os.path.join(self.folder, "munge.sock")), "munged")
        self.servers.append(self.start(["slurmctld", "-D", "-c"]))
        self.wait(lambda: "is UP" in self.ask("scontrol", "ping"), "slurmctld")

    def configure(self, rows):
        """Writes the configuration; the kinds of nodes that there are."""
        groups = {}
        with open(rows, encoding="ascii") as file:
            for number, line in zip(range(NODES), file):
                _, place, kind = line.split("\t")[:3]
                groups.setdefault((kind, place), []).append(str(number))
        user = subprocess.run(["id", "-un"], check=True, capture_output=True, text=True).stdout.strip()
        with open(self.env["SLURM_CONF"], "w", encoding="ascii") as file:
            file.write(CONF.format(host=os.uname().nodename, user=user, folder=self.folder))
            for (kind, place), numbers in groups.items():
                file.write(
                    f"NodeName=w[{','.join(numbers)}] CPUs=8 RealMemory=64000"
                    f" Features=class{kind},place{place} State=CLOUD\n"
                )
            file.write("PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP\n")
        return list(groups)

    def start(self, words):
        with open(os.path.join(self.folder, "log"), "a", encoding="ascii") as log:
            return subprocess.Popen(words, env=self.env, stdout=log, stderr=log)

    def wait(self, is_up, what):
        for _ in range(300):
            if is_up():
                return
            time.sleep(0.2)
        with open(os.path.join(self.folder, "log"), encoding="utf-8", errors="replace") as log:
            raise SystemExit(f"match-peers: {what} did not start:\n{log.read()[-2_000:]}")

    def ask(self, *words):
        return subprocess.run(words, env=self.env, capture_output=True, text=True).stdout

    def started(self):
        """Jobs that were started so far, as the controller counts them."""
        return int(re.search(r"Jobs started:\s+(\d+)", self.ask("sdiag")).group(1))

    def rate(self):
        """Jobs started in a second."""
        for number in range(ARRAYS):
            kind, _ = self.kinds[number * 7 % len(self.kinds)]
            subprocess.run(
                ["sbatch", "-Q", f"--array=0-{JOBS - 1}", "-n1", "-c1", "--mem=100", "-t60",
                 "-C", f"class{kind}", "-o", "/dev/null", "--wrap", "true"],
                env=self.env, cwd=self.folder, check=True,
            )
        first, began = self.started(), time.perf_counter()
        count = first
        while time.perf_counter() - began < WITHIN_S and count < ARRAYS * JOBS:
            time.sleep(1)
            count = self.started()
        return (count - first) / (time.perf_counter() - began)

    def close(self):
        for server in reversed(self.servers):
            server.terminate()
            server.wait()


def paths():
    """Daemons stand where an ordinary user does not look."""
    return os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])
