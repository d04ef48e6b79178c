"""What is this machine, as a cell? Cores, memory, OpenCL devices and GPUs, joined by its memory.

Everything here shares one memory, so there is one switch, "fabric", with more lanes at each engine
than programs use; what needs many engines of one switch is planned as on a real one.
"""

import json
import os
import platform
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from flowos.model.cell import Attribute, Cell, Engine, Link, Node, Switch, Tenant

FABRIC: Final = "fabric"
LANES: Final = 64  # at each engine, in each direction
LANE_GBPS: Final = 40.0  # about what two processes move through memory, shared by all lanes
AGGREGATORS: Final = 8
PROBE_SECONDS: Final = 20.0
MEMORY_PART: Final = 0.9  # of the machine's, that engines have together
_NAME: Final = re.compile(r"[^a-z0-9-]+")

_PROBE: Final = """
import json
import pyopencl as cl
print(json.dumps([
    {"platform": p, "device": d, "name": device.name, "type": cl.device_type.to_string(device.type),
     "memory_bytes": device.global_mem_size}
    for p, platform in enumerate(cl.get_platforms())
    for d, device in enumerate(platform.get_devices())
]))
"""


@dataclass(frozen=True, slots=True)
class Device:
    """What an engine is on this machine.

    Attributes:
        engine: Its id in the cell.
        kind: cpu, gpu or opencl.
        model: What exactly.
        memory_bytes: Its own, or its part of the machine's.
        cores: Those that its tasks run on; empty = any.
        opencl: "platform:device", as pyopencl counts them; "" = none.
        cuda: The GPU's index; "" = none.
    """

    engine: str
    kind: str
    model: str
    memory_bytes: int
    cores: tuple[int, ...] = ()
    opencl: str = ""
    cuda: str = ""


@dataclass(frozen=True, slots=True)
class Machine:
    """This machine: its name in the cell, its engines, and how many lanes each of them has."""

    node: str
    cpu_millis: int
    memory_bytes: int
    devices: tuple[Device, ...]
    lanes: int = LANES

    def cell(self) -> Cell:
        """Return it as a cell."""
        cell = Cell(name="main")
        cell.add(
            Node(
                self.node,
                cpu_millis=self.cpu_millis,
                memory_bytes=self.memory_bytes,
                attributes={"os": platform.system().lower(), "arch": platform.machine()},
                devices_max=0,
            )
        )
        cell.add(Tenant("default"))
        count = len(self.devices)
        cell.add(Switch(FABRIC, ports=count + 1, aggregators=AGGREGATORS, functions=("sum",)))
        for number, device in enumerate(self.devices):
            attributes: dict[str, Attribute] = {}
            if device.cores:
                attributes["core"] = device.cores[0]
            cell.add(
                Engine(
                    self.node,
                    device.engine.partition("/")[2],
                    device.kind,
                    device.model,
                    device.memory_bytes,
                    attributes=attributes,
                )
            )
            cell.add(
                Link(
                    f"l{number}",
                    f"{device.engine}:0",
                    f"{FABRIC}:{number}",
                    self.lanes,
                    LANE_GBPS,
                    500,
                )
            )
        return cell


def this_machine(folder: Path | None = None) -> Machine:
    """Look at this machine.

    Args:
        folder: Where to remember which OpenCL devices there are, for they take a second to find;
            None = they are looked for each time.
    """
    node = node_name()
    cores = sorted(os.sched_getaffinity(0))
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    each = int(min(total, _limit()) * MEMORY_PART) // max(1, len(cores))
    model = _cpu_model()
    devices = [Device(f"{node}/cpu{core}", "cpu", model, each, (core,)) for core in cores]
    gpus = _gpus()
    devices += [
        Device(f"{node}/gpu{index}", "gpu", name, memory, cuda=index)
        for index, name, memory in gpus
    ]
    for found in _opencl(folder):
        if "GPU" in found["type"] and gpus:
            continue  # it is one of those
        number = sum(device.kind == "opencl" for device in devices)
        devices.append(
            Device(
                f"{node}/opencl{number}",
                "opencl",
                _model(str(found["name"])),
                int(found["memory_bytes"]),
                opencl=f"{found['platform']}:{found['device']}",
            )
        )
    return Machine(node, 1000 * len(cores), total, tuple(devices))


def cache_folder() -> Path:
    """Return where it is remembered what takes long to find out."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "flowos"


def node_name() -> str:
    """Return what this machine is called in a cell."""
    name = _NAME.sub("-", platform.node().partition(".")[0].lower()).strip("-")[:40]
    return name or "machine"


def _limit() -> int:
    """Return how much memory this process's group may use."""
    try:
        text = Path("/sys/fs/cgroup/memory.max").read_text().strip()
        return int(text) if text.isdigit() else sys.maxsize
    except OSError:
        return sys.maxsize


def _cpu_model() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return _model(line.partition(":")[2])
    except OSError:
        pass
    return _model(platform.processor() or platform.machine())


def _model(name: str) -> str:
    """Return a model as one word that a request can name."""
    return re.sub(r"[^A-Za-z0-9.+-]+", "-", name.strip()).strip("-")[:60]


def _gpus() -> list[tuple[str, str, int]]:
    """Return index, model and memory of each NVIDIA GPU that this process may see."""
    query = ["nvidia-smi", "--query-gpu=index,name,memory.total", "--format=csv,noheader,nounits"]
    try:
        said = subprocess.run(
            query, capture_output=True, text=True, timeout=PROBE_SECONDS, check=True
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    seen = os.environ.get("CUDA_VISIBLE_DEVICES")
    rows = [[word.strip() for word in line.split(",")] for line in said.splitlines() if line]
    return [
        (index, _model(name), int(memory) * 2**20)
        for index, name, memory in rows
        if seen is None or index in seen.split(",")
    ]


def _installed() -> list[str]:
    """Return what the answer depends on: this Python, and the OpenCL drivers of the machine."""
    vendors = sorted(path.name for path in Path("/etc/OpenCL/vendors").glob("*.icd"))
    variables = [
        f"{name}={os.environ.get(name, '')}" for name in ("OCL_ICD_VENDORS", "POCL_DEVICES")
    ]
    return [sys.prefix, *vendors, *variables]


def _opencl(folder: Path | None) -> list[dict[str, Any]]:
    """Return the OpenCL devices; asked in another process, for drivers may crash theirs."""
    known = folder / "opencl.json" if folder is not None else None
    installed = _installed()
    if known is not None and known.exists():
        try:
            record = json.loads(known.read_text())
            if record["installed"] == installed:
                return list(record["devices"])
        except (OSError, ValueError, KeyError, TypeError):
            pass
    try:
        asked = subprocess.run(
            [sys.executable, "-c", _PROBE], capture_output=True, text=True, timeout=PROBE_SECONDS,
            check=False,
        )  # fmt: skip
        found = list(json.loads(asked.stdout)) if asked.returncode == 0 else []
    except (OSError, ValueError, subprocess.SubprocessError):
        found = []
    if known is not None and found:  # none may be one that is installed later
        known.parent.mkdir(parents=True, exist_ok=True)
        known.write_text(json.dumps({"installed": installed, "devices": found}))
    return found
