"""A SLURM cluster of two nodes on this machine: real daemons, on loopback, without systemd and without accounting."""

import getpass
import os
import shutil
import subprocess
import tempfile
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from unittest.mock import patch

from processes import free_ports

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "scancel", "scontrol")
NODES = ("n1", "n2")
PLACES = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"  # where a user who is not root has no daemons in the PATH

# cred_expire: a job that is queued again waits so many seconds, and otherwise two minutes.
CONFIGURATION = """
ClusterName={name}
FirstJobId={first}
SlurmctldHost=localhost(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
SlurmctldPort={ports[0]}
AuthType=auth/munge
AuthInfo=socket={root}/munge/socket,cred_expire=5
CommunicationParameters=NoInAddrAny
StateSaveLocation={root}/state
SlurmdSpoolDir={root}/spool-%n
SlurmctldPidFile={root}/slurmctld.pid
SlurmdPidFile={root}/slurmd-%n.pid
SlurmctldLogFile={root}/slurmctld.log
SlurmdLogFile={root}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_interval=1,bf_interval=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
JobRequeue=1
ReturnToService=2
SlurmdParameters=config_overrides
SlurmdTimeout=15
KillWait=10
MpiDefault=none
MaxArraySize=21
NodeName=n1 NodeHostname=localhost NodeAddr=127.0.0.1 Port={ports[1]} CPUs=1
NodeName=n2 NodeHostname=localhost NodeAddr=127.0.0.1 Port={ports[2]} CPUs=1
PartitionName=main Nodes=n1,n2 MaxTime=INFINITE Default=YES PriorityTier=1
PartitionName=first Nodes=n1 MaxTime=INFINITE PriorityTier=1
PartitionName=urgent Nodes=n1 MaxTime=INFINITE PriorityTier=10
"""


def missing():
    """The programs that are not here."""
    return [name for name in PROGRAMS if not shutil.which(name, path=PLACES)]


class Cluster:
    """A context: within, SLURM_CONF is that of the cluster, and its daemons run. `slurmd` are the nodes' by name."""

    def __init__(self, name="advmix", first=1):
        """`first` is the number of its first job."""
        self.name, self.first = name, first
        self.slurmd = {}
        self._daemons = []

    def __enter__(self):
        with ExitStack() as stack:
            # Short: the path of a socket has at most 107 characters.
            self.root = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="slurm-")))
            stack.enter_context(patch.dict(os.environ, SLURM_CONF=str(self.root / "slurm.conf")))
            stack.callback(self._end)
            self._start()
            self._exits = stack.pop_all()
        return self

    def __exit__(self, *error):
        return self._exits.__exit__(*error)

    def _start(self):
        (self.root / "munge").mkdir(mode=0o700)
        (self.root / "state").mkdir()
        key = self.root / "munge" / "key"
        key.write_bytes(os.urandom(1024))
        key.chmod(0o600)
        ports = free_ports(3)
        text = CONFIGURATION.format(
            name=self.name, first=self.first, root=self.root, user=getpass.getuser(), ports=ports
        )
        (self.root / "slurm.conf").write_text(text)
        files = {"key-file": "key", "socket": "socket", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}
        options = [f"--{option}={self.root / 'munge' / name}" for option, name in files.items()]
        # --force: the directory above ours is everybody's.
        self._daemon("munged", "--foreground", "--force", *options)
        self._until(lambda: (self.root / "munge" / "socket").exists(), "munged")
        self._daemon("slurmctld", "-D")
        for name in NODES:
            self.start(name)

    def start(self, name):
        """The daemon of a node; returns when the node can be used."""
        self.slurmd[name] = self._daemon("slurmd", "-D", "-N", name)
        # It may have a job at once; what does not answer has a star behind its state.
        self._until(lambda: self.ask("sinfo", "-h", "-n", name, "-p", "main", "-o", "%t") in ("idle", "alloc"), name)

    def kill(self, name):
        """The daemon of a node, as a machine that loses its power would."""
        self.slurmd[name].kill()
        self.slurmd[name].wait()

    def ask(self, *words):
        """What one of the cluster's commands prints, or nothing if it fails."""
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        return "" if done.returncode else done.stdout.strip()

    def tell(self, *words):
        """What one of the cluster's commands prints; it must not fail."""
        return subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True).stdout.strip()

    def queue(self):
        """{job: its state} of all that is not over."""
        return dict(line.split("|") for line in self.tell("squeue", "-h", "-r", "-o", "%i|%T").splitlines())

    def clear(self):
        """End every job."""
        self.ask("scancel", "--user", getpass.getuser(), "--signal=KILL")
        self.ask("scancel", "--user", getpass.getuser())
        # A task that was just starting may not hear it, and is killed 10 seconds (KillWait) after it was cancelled.
        self._until(lambda: not self.ask("squeue", "-h"), "an empty queue", 60)

    def wait(self, what, seconds=180):
        """Until `what()` is true."""
        self._until(what, "what was waited for", seconds)

    def _daemon(self, *words):
        with (self.root / f"{words[0]}.out").open("ab") as said:
            program = shutil.which(words[0], path=PLACES)
            process = subprocess.Popen([program, *words[1:]], stdin=subprocess.DEVNULL, stdout=said, stderr=said)
        self._daemons.append(process)
        return process

    def _until(self, true, what, seconds=60):
        end = time.monotonic() + seconds
        while not true():
            if time.monotonic() > end:
                raise AssertionError(f"{what} did not come to be; {self._said()}")
            time.sleep(0.1)

    def _said(self):
        """The ends of what the daemons wrote, and the queue."""
        files = [*self.root.glob("*.out"), *self.root.glob("*.log")]
        ends = [f"{path.name}: {path.read_text(errors='replace')[-1500:]}" for path in files]
        return "\n".join([self.ask("squeue", "-r"), self.ask("sinfo", "-N", "-l"), *ends])

    def _end(self):
        with suppress(AssertionError):
            self.clear()  # jobs would live on without their daemons
        for process in reversed(self._daemons):
            process.terminate()
        for process in self._daemons:
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
