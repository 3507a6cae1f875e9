"""Two nodes that cannot see each other's disks, in network and mount namespaces of their own: needs root and Linux.

    python tests/cluster/apart.py        a sweep in a folder of node A is refused, one in a folder of both runs

Every process is started here and ended by its id; the network device goes with the namespace.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from machines import Machines
from timeline import COMMAND, Timeline

OUTER, INNER = "ct-a", "ct-b"
"""The two ends of the cable between the namespaces."""

HEAD, FAR = "10.77.31.1", "10.77.31.2"

_INSIDE = f"""
hostname node-b; ip link set lo up
until ip link show {INNER} >/dev/null 2>&1; do sleep 0.1; done
ip addr add {FAR}/24 dev {INNER}; ip link set {INNER} up
mount -t tmpfs none "$0"
until (exec 3<>/dev/tcp/{HEAD}/$1) 2>/dev/null; do sleep 1; done
shift; exec "$@"
"""
"""What a node does before it begins: a name, a network, another disk where A's sweeps are; then it awaits its head."""


def unavailable() -> str:
    """Why there are no namespaces here; empty when there are."""
    if not hasattr(os, "geteuid") or os.geteuid() != 0 or not all(map(shutil.which, ("unshare", "ip"))):
        return "root, unshare and ip are needed"
    done = subprocess.run(["unshare", "--mount", "--net", "--uts", "true"], capture_output=True, text=True, check=False)
    return done.stderr.strip()


def cable(process: int) -> None:
    """Connect this namespace with that of a process."""
    for command in (
        f"ip link add {OUTER} type veth peer name {INNER}",
        f"ip addr add {HEAD}/24 dev {OUTER}",
        f"ip link set {OUTER} up",
        f"ip link set {INNER} netns {process}",
    ):
        subprocess.run(command.split(), check=True)


def run(machines: Machines, sweeps: Path, outside: Path) -> tuple[int, str]:
    """A small sweep from outside; its exit code, and what was printed."""
    outside.mkdir()
    profile = outside / "apart.yaml"
    where = f"address: {machines.address}\nsweeps: {sweeps}\ngpus_per_trial: 0\n"
    profile.write_text(f"name: apart\nkind: existing\n{where}")
    options = ("--cluster", str(profile), "--dir", "apart", "--set", "budget.trials=3")
    code = machines.run(*COMMAND, "run", "smoke", *options, cwd=outside).wait(timeout=600)
    return code, (outside / "printed.txt").read_text()


def wait_for_nodes(count: int, machines: Machines) -> None:
    """Until so many nodes are alive, as Ray's own command sees them."""
    command = [str(Path(sys.executable).parent / "ray"), "status", "--address", f"{HEAD}:{machines.port}"]
    for _ in range(60):
        done = subprocess.run(command, env=machines.environment, capture_output=True, text=True, check=False)
        if done.stdout.count("node_") >= count:
            return
        time.sleep(1)
    raise SystemExit(f"{count} nodes must come up, but: {done.stdout or done.stderr}")


def play(place: Path) -> bool:
    """Whether the local folder was refused and the shared one served."""
    line, local, shared = Timeline(), place / "disk-of-a" / "sweeps", place / "shared" / "sweeps"
    for folder in (local, shared):
        folder.mkdir(parents=True)
    with Machines(place, host=HEAD) as machines:
        inside = ("unshare", "--mount", "--net", "--uts", "bash", "-c", _INSIDE, str(local.parent), str(machines.port))
        machines.add("b", prefix=inside, host=FAR)
        cable(machines.nodes["b"].pid)
        line.say("node b has a network and a disk of its own; it waits for its head")
        machines.head(cpus=1)
        wait_for_nodes(2, machines)
        line.say("head and node b are one cluster")
        code, told = run(machines, local, place / "first")
        reason = next((text for text in told.splitlines() if "node-b" in text), told[-400:])
        line.say(f"a sweep on the head's own disk: exit {code}\n           {reason.strip()}")
        code_shared, told = run(machines, shared, place / "second")
        line.say(f"the same on storage of both: exit {code_shared}")
    return code == 2 and "must be able to read" in reason and code_shared == 0


def main() -> int:
    """Run it; 0 when all was as it must be."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    if reason := unavailable():
        print(f"skipped: {reason}")
        return 0
    place = Path(tempfile.mkdtemp(prefix="apart-"))
    try:
        sound = play(place)
    finally:
        subprocess.run(["ip", "link", "del", OUTER], capture_output=True, check=False)
    if sound:
        shutil.rmtree(place, ignore_errors=True)
    else:
        print(f"left in {place}")
    return 0 if sound else 1


if __name__ == "__main__":
    sys.exit(main())
