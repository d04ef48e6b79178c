"""What does a process of a slice find in its environment, and in which files?"""

import json
import os
import sys
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from flowos.drivers.local.devices import Device
from flowos.model.placement import Gang, Order

REDUCER: Final = "reducer"  # the role of a task that runs for an aggregator
PORT_FIRST: Final = 20_000  # of rendezvous: below what the kernel gives out by itself
PORTS: Final = 10_000
LOCAL: Final = "127.0.0.1"


def members(order: Order) -> list[tuple[int, str, str, str]]:
    """Return rank, role, engine and node of all tasks of an order's slice, in rank order.

    A slice without engines has one on each of its hosts.
    """
    gang = order.gang or Gang()
    if not gang.engines:
        return [(rank, "host", node, node) for rank, node in enumerate(gang.hosts)]
    seen: dict[str, str] = {}
    for role, engines in gang.engines.items():
        for engine in engines:
            seen.setdefault(engine, role)
    seen |= dict.fromkeys(gang.reducers, REDUCER)
    return [
        (rank, role, engine, engine.partition("/")[0])
        for rank, (engine, role) in enumerate(seen.items())
    ]


def circuits_text(orders: Iterable[Order]) -> str:
    """Return what tasks read of their circuits, as the orders of several places name them."""
    circuits = dict.fromkeys(c for o in orders if o.gang is not None for c in o.gang.circuits)
    return json.dumps(
        [
            {
                "sources": list(c.sources),
                "targets": list(c.targets),
                "aggregate": c.aggregate,
                "reducer": c.reducer,
            }
            for c in circuits
        ]
    )


def peers_text(order: Order) -> str:
    """Return what tasks read of each other, by rank."""
    return json.dumps(
        [
            {"rank": rank, "role": role, "engine": engine, "node": node,
             "address": _address(order, node)}
            for rank, role, engine, node in members(order)
        ]
    )  # fmt: skip


def hostfile_text(order: Order) -> str:
    """Return what mpirun reads: addresses, and how many tasks each has."""
    counts: dict[str, int] = {}
    for *_, node in members(order):
        counts[_address(order, node)] = counts.get(_address(order, node), 0) + 1
    return "".join(f"{address} slots={count}\n" for address, count in counts.items())


def environment(
    order: Order,
    attempt: str,
    rank: int,
    *,
    folder: Path,
    scratch: Path,
    device: Device | None,
    base: Mapping[str, str],
) -> dict[str, str]:
    """Return the environment of one task.

    Args:
        order: Of its place.
        attempt: Whose it is.
        rank: In the slice.
        folder: Where peers.json, circuits.json and hostfile lie.
        scratch: Its own folder.
        device: What it runs on, where that is known.
        base: What it has anyway.
    """
    everybody = members(order)
    _, role, engine, node = everybody[rank]
    same_role = [r for r, name, *_ in everybody if name == role]
    here = [r for r, _, _, at in everybody if at == node]
    first = everybody[0][3]
    nodes = len({at for *_, at in everybody})
    found: dict[str, Any] = {
        **base,
        "FLOWOS_SLICE": order.slice,
        "FLOWOS_ATTEMPT": attempt,
        "FLOWOS_RANK": rank,
        "FLOWOS_SIZE": len(everybody),
        "FLOWOS_ROLE": role,
        "FLOWOS_ROLE_RANK": same_role.index(rank),
        "FLOWOS_ENGINE": engine,
        "FLOWOS_NODE": node,
        "FLOWOS_NODES": nodes,
        "FLOWOS_ADDRESS": _address(order, node),
        "FLOWOS_LOCAL_RANK": here.index(rank),
        "FLOWOS_LOCAL_SIZE": len(here),
        "FLOWOS_PEERS": folder / "peers.json",
        "FLOWOS_CIRCUITS": folder / "circuits.json",
        "FLOWOS_HOSTFILE": folder / "hostfile",
        "FLOWOS_SCRATCH": scratch,
        # What torchrun, torch.distributed and many others look for.
        "MASTER_ADDR": _address(order, first),
        "MASTER_PORT": PORT_FIRST + zlib.crc32(attempt.encode()) % PORTS,
        "WORLD_SIZE": len(everybody),
        "RANK": rank,
        "LOCAL_RANK": here.index(rank),
        "LOCAL_WORLD_SIZE": len(here),
    }
    if device is not None:
        found |= variables(device) | {k: v for k, v in base.items() if k == "OMP_NUM_THREADS"}
        if not device.cuda and "CUDA_VISIBLE_DEVICES" in base:
            found["CUDA_VISIBLE_DEVICES"] = ""
    found |= dict(order.run.env)
    return {name: str(value) for name, value in found.items()}


def variables(device: Device) -> dict[str, str]:
    """Return what tells a task of its device."""
    found = {"FLOWOS_MEMORY": str(device.memory_bytes if device.kind != "opencl" else 0)}
    if device.opencl:
        found["FLOWOS_OPENCL"] = found["PYOPENCL_CTX"] = device.opencl
    if device.cuda:
        found["CUDA_VISIBLE_DEVICES"] = device.cuda
    if device.cores:  # else libraries start a thread for each core of the machine
        found["OMP_NUM_THREADS"] = str(len(device.cores))
    return found


def base_environment() -> dict[str, str]:
    """Return what each task has of this process's environment: all but what is the agent's own."""
    mine = ("FLOWOS_", "MASTER_", "OMPI_", "PMIX_")
    found = {k: v for k, v in os.environ.items() if not k.startswith(mine)}
    # `python` in a command is this one, with what is installed beside it.
    bin_folder = str(Path(sys.executable).parent)
    path = found.get("PATH", os.defpath)
    if bin_folder not in path.split(os.pathsep):
        found["PATH"] = f"{bin_folder}{os.pathsep}{path}"
    return found


def _address(order: Order, node: str) -> str:
    return (order.gang.addresses if order.gang else {}).get(node, LOCAL)
