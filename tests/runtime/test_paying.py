"""Does a more important slice that lacks only quota, or watts, get it from who gives way?"""

from dataclasses import replace

import pytest

from flowos.model.cell import Tenant
from flowos.model.codec import encode
from flowos.model.slice import Phase
from flowos.model.transaction import Put
from tests.runtime.cells import wanted
from tests.runtime.stage import Stage

TAKER = "vision/gang"


def stage(quota: int | None, budget: int | None = None) -> Stage:
    """Four GPUs on each of two nodes, of which a tenant may use some."""
    found = Stage(gpus=4, fpgas=0, budget=budget)
    quotas = {} if quota is None else {"gpu": quota}
    found.write(Put("tenant/vision", encode(Tenant("vision", quota=quotas))))
    return found


def spenders(
    where: Stage, count: int, tenant: str = "vision", *, gives_way: bool = True
) -> list[str]:
    """Slices of one GPU that run for long."""
    for number in range(count):
        name = f"s{number}"
        spec = wanted(name, gpus=1, run_for=100.0, tenant=tenant)
        where.submit(replace(spec, preemptible=gives_way))
        where.until(f"{tenant}/{name}", Phase.RUNNING)
    return [f"{tenant}/s{number}" for number in range(count)]


def taker(where: Stage, gpus: int) -> None:
    where.submit(wanted("gang", gpus=gpus, run_for=10.0, tenant="vision", priority=5))
    where.play(2.0)


@pytest.mark.parametrize("gpus", [2, 4])
def test_quota_comes_from_the_less_important_slices_of_the_tenant(gpus):
    where = stage(quota=4)
    ours, others = spenders(where, 4), spenders(where, 2, tenant="default")
    taker(where, gpus)
    assert len(where.held(TAKER)) == gpus
    assert sum(where.placed(name).ending is None for name in ours if where.held(name)) == 4 - gpus
    assert all(map(where.held, others)), "what others hold does not help"
    where.until(TAKER, Phase.DONE, 30.0)
    where.play_out(400)


def test_what_is_left_of_the_quota_is_spent_too():
    where = stage(quota=4)
    ours = spenders(where, 2)
    taker(where, 3)
    assert len(where.held(TAKER)) == 3
    assert sum(bool(where.held(name)) for name in ours) == 1
    where.play_out(400)


def test_who_does_not_give_way_keeps_what_it_spends():
    where = stage(quota=4)
    spenders(where, 4, gives_way=False)
    taker(where, 4)
    assert not where.held(TAKER)


def test_watts_come_from_the_less_important_slices_in_the_domain():
    where = stage(quota=None, budget=400)
    spenders(where, 4, tenant="default")
    taker(where, 4)
    assert len(where.held(TAKER)) == 4
    where.play_out(400)
