"""What does a slice ask for whose engines are devices that circuits attach to hosts?"""

from dataclasses import replace
from typing import Final

from flowos.model.slice import CircuitWish, EngineRole, HostRole, Shape, SliceSpec

_HOST: Final = HostRole(4000, 8 << 30, 1)  # of slices that do not say what their engines need


def attached(spec: SliceSpec, per_host: int) -> SliceSpec:
    """Return a slice for as many engines, of which each so many hang on a host of their own.

    A circuit joins each host to its engines, and one them to it. CPU and memory that the slice asks
    for beside its engines are its hosts' then; other hosts that it asks for stay as they are, and a
    slice without engines, or with a share of one, is as it was.

    Args:
        spec: A slice; where its engines go, and what circuits join them, is left out.
        per_host: Engines of a host, from 1 up.
    """
    whole = {
        role: wish for role, wish in spec.engines.items() if wish.choices[0].share_millis == 1000
    }
    if len(whole) < len(spec.engines) or not whole:
        return spec
    engines: dict[str, EngineRole] = {}
    hosts = {role: wish for role, wish in spec.hosts.items() if role not in whole}
    circuits: list[CircuitWish] = []
    for wish in whole.items():
        role, choice = wish[0], wish[1].choices[0]
        beside = spec.hosts.get(role)
        for part, first in enumerate(range(0, choice.count, per_host)):
            count = min(per_host, choice.count - first)
            devices, driver = f"{role}{part}", f"{role}{part}-driver"
            engines[devices] = EngineRole((replace(choice, count=count),))
            hosts[driver] = _HOST if beside is None else HostRole(
                beside.cpu_millis * count, beside.memory_bytes * count, 1
            )  # fmt: skip
            circuits += [
                CircuitWish(Shape.FLOW, (driver, devices)),
                CircuitWish(Shape.FLOW, (devices, driver)),
            ]
    return replace(spec, engines=engines, hosts=hosts, circuits=tuple(circuits), together={})
