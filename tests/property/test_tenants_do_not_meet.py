"""Do commits conflict only where they want the same unit, or parts of the same thing?"""

from itertools import combinations

from hypothesis import given
from hypothesis import strategies as st

from flowos.model import keys
from flowos.model.cell import FAMILY_OF, Tenant, name_of
from flowos.model.codec import encode
from flowos.model.placement import Decision, Session
from flowos.model.slice import Slice, SliceSpec
from flowos.model.transaction import Committed, Put, Transaction
from flowos.model.units import subject_of
from flowos.model.view import CellView
from flowos.protocol.commit import commit
from flowos.protocol.grants import limit_of
from flowos.protocol.proposal import Fence
from flowos.simulation.stage import VirtualClock
from flowos_store.memory import MemoryStore
from tests.runtime.cells import PURSE, small_cell

NODES, GPUS = 3, 4
TENANTS = ("audio", "vision")
SCHEDULERS = ("p", "q")
UNITS = [
    *(f"engine/n{node}/gpu{gpu}" for node in range(NODES) for gpu in range(GPUS)),
    *(f"share/n{node}/gpu{gpu}" for node in range(NODES) for gpu in range(GPUS)),
    *(f"host/n{node}" for node in range(NODES)),
]
AMOUNTS = {"engine": (), "share": (100,), "host": (10, 10)}
PLANS = st.lists(
    st.tuples(
        st.sampled_from(TENANTS),
        st.sampled_from(SCHEDULERS),
        st.sets(st.sampled_from(UNITS), min_size=1),
    ),
    min_size=2,
    max_size=6,
)


def things(units: set[str]) -> set[str]:
    """What a commit touches: an engine, whole or in parts, or a host."""
    return {f"{'host' if u.startswith('host/') else 'engine'}/{subject_of(u)}" for u in units}


def meet(one: set[str], other: set[str]) -> bool:
    """Whether two commits may conflict: nothing else that they have in common is written by either."""
    return not things(one).isdisjoint(things(other))


def stocked() -> MemoryStore:
    """A cell where both tenants have quotas, and both schedulers have grants enough for all."""
    cell = small_cell(nodes=NODES, gpus=GPUS, fpgas=0, budget=4000)
    for tenant in TENANTS:
        cell.add(Tenant(tenant, quota={"gpu": 2 * NODES * GPUS}))
    store = MemoryStore(VirtualClock(), operations_max=512)
    puts = [Put(keys.inventory(FAMILY_OF[type(t)], name_of(t)), encode(t)) for t in cell.things()]
    for scheduler in SCHEDULERS:
        session = Session("scheduler", scheduler)
        puts.append(Put(keys.session("scheduler", scheduler), encode(session)))
        puts += [
            Put(keys.grant(purse, scheduler), encode((limit_of(cell, purse) or 0) // 2))
            for purse in (PURSE, *(f"tenant:{tenant}:gpu" for tenant in TENANTS))
        ]
    store.commit([Transaction((), tuple(puts))])
    return store


@given(plans=PLANS, order=st.randoms(use_true_random=False))
def test_commits_that_want_different_things_never_conflict(plans, order):
    wanted = [
        (
            tenant,
            scheduler,
            {u for u in units if not u.startswith("share/") or _whole(u) not in units},
        )
        for tenant, scheduler, units in plans
    ]
    store = stocked()
    names = [f"{tenant}/s{number}" for number, (tenant, _, _) in enumerate(wanted)]
    for name, (tenant, _, _) in zip(names, wanted, strict=True):
        record = Slice(SliceSpec(name=name.partition("/")[2], tenant=tenant))
        store.commit([Transaction((), (Put(keys.slice_(name), encode(record)),))])
    reading = store.read([""])
    steps = []
    for name, (_, scheduler, units) in zip(names, wanted, strict=True):
        view = CellView()  # each plans on what was there before any of them
        view.load(reading.records)
        view.progressed(reading.revision)
        key = keys.session("scheduler", scheduler)
        fence = Fence(key, view.sessions[f"scheduler/{scheduler}"].modified)
        decision = Decision(engines={}, units={u: AMOUNTS[u.partition("/")[0]] for u in units})
        step = commit(view, name, decision, fence=fence, attempt=name, scheduler=scheduler)
        assert step is not None
        steps.append(step)
    turns = list(range(len(steps)))
    order.shuffle(turns)
    won: list[int] = []
    for turn in turns:
        (outcome,) = store.commit([steps[turn].transaction])
        if not any(meet(wanted[turn][2], wanted[other][2]) for other in won):
            assert isinstance(outcome, Committed), f"{names[turn]} conflicts with nobody"
        if isinstance(outcome, Committed):
            won.append(turn)
    for one, other in combinations(won, 2):
        assert things(wanted[one][2]).isdisjoint(things(wanted[other][2]))


def _whole(share: str) -> str:
    return f"engine/{subject_of(share)}"
