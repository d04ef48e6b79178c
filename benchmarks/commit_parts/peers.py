"""What the rival does here, now: Slurm's controller, driven by its own library."""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from commit_parts.cells import on_disk

SCRIPT = Path(__file__).resolve().parents[3] / "shared" / "peers" / "slurm_bench.sh"
PROGRAMS = ("slurmctld", "munged", "scontrol", "cc")
SBIN = "/usr/sbin"
INSTALL = "apt-get install munge slurmctld slurm-client libslurm-dev slurm-wlm-basic-plugins gcc"
RUN_SECONDS = 600


@dataclass
class Slurm:
    """Gangs a second; None = not measured.

    Attributes:
        client: One blocking client, half full, each allocation followed by the end of the oldest.
        gang64: The same with gangs of 64 on 8 nodes, nearly empty.
        drain: A backlog of batch jobs, from the first to the last that was started.
        p50_ms: Of the client's allocations.
    """

    client: float | None = None
    gang64: float | None = None
    drain: float | None = None
    p50_ms: float | None = None


def why_not() -> str:
    """Return why Slurm cannot be run here; "" = it can."""
    if not SCRIPT.is_file():
        return f"there is no {SCRIPT}"
    path = f"{os.environ.get('PATH', '')}:{SBIN}"
    missing = [name for name in PROGRAMS if shutil.which(name, path=path) is None]
    if missing:
        return f"{', '.join(missing)} missing: {INSTALL}"
    return "" if os.geteuid() == 0 else "its daemons want to be root"


def slurm(*, nodes: int, slices: int, backlog: int, occupied: float = 0.5) -> Slurm:
    """Run the rival's benchmark; what it does not tell is None, and said on stderr."""
    why = why_not()
    if why:
        print(f"no Slurm beside: {why}", file=sys.stderr)
        return Slurm()
    folder = Path(tempfile.mkdtemp(prefix="flowos-slurm-", dir=on_disk()))
    settings = {
        "NODES": nodes, "CPUS": 8, "OPS": slices, "BACKLOG": backlog, "CLI": 0, "OCC": occupied,
        "DIR": folder / "run",
    }  # fmt: skip
    environment = os.environ | {name: str(value) for name, value in settings.items()}
    process = subprocess.Popen(
        ["bash", str(SCRIPT)], env=environment, cwd=folder, text=True, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        out, err = process.communicate(timeout=RUN_SECONDS)
    except subprocess.TimeoutExpired:
        print(f"no Slurm beside: not done in {RUN_SECONDS} s", file=sys.stderr)
        return Slurm()
    finally:
        if process.poll() is None:  # it stops its daemons when it is asked to end
            os.killpg(process.pid, signal.SIGTERM)
            process.wait()
        for _ in range(20):  # they write until they have ended
            shutil.rmtree(folder, ignore_errors=True)
            if not folder.exists():
                break
            time.sleep(0.1)
    told = read(out)
    asked = ("client", "gang64", *(("drain",) if backlog else ()))
    missing = [name for name in asked if getattr(told, name) is None]
    if missing:
        words = (out + err).strip().splitlines()[-3:]
        print(f"Slurm did not tell {', '.join(missing)}: {' | '.join(words)}", file=sys.stderr)
    return told


def read(text: str) -> Slurm:
    """Return what the script's lines say; a line that is not there, or says less, says nothing."""
    lines: dict[str, Mapping[str, float]] = {}
    for line in text.splitlines():
        head, _, rest = line.partition(" ")
        found = re.findall(r"(\w+)=([0-9.]+)(?=\s|$)", rest)
        lines[head.partition("(")[0]] = {name: float(value) for name, value in found}
    client = next((v for k, v in lines.items() if k.startswith("A-occ")), {})
    whole = lines.get("A-64gpu", {})
    drained = lines.get("B-drain", {})
    return Slurm(
        client=_rate(client, "allocated_at_once"),
        gang64=_rate(whole, "allocated_at_once"),
        drain=_rate(drained, "started"),
        p50_ms=client.get("p50_ms"),
    )


def _rate(line: Mapping[str, float], counted: str) -> float | None:
    # A rate over hardly any gangs is none.
    return line.get("gangs_per_s") or None if line.get(counted, 0) > 10 else None
