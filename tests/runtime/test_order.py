"""Whose turn is it: tenants by weight, those who have waited long, and what the cell's rules set."""

import pytest

from flowos.model import keys
from flowos.model.cell import Cell, Tenant
from flowos.model.codec import decode, encode
from flowos.model.rules import Assignment, PolicyRules
from flowos.model.slice import Phase, Slice, SliceSpec
from flowos.model.transaction import Put, Transaction
from flowos.model.view import CellView, Entry
from flowos.planning.policy import Order, Policy, Waits
from flowos.runtime.client import CellClient
from flowos.runtime.clock import SystemClock
from flowos.runtime.guarded import Guarded
from flowos.runtime.loading import load_cell_into
from flowos.runtime.ranks import Ranks
from flowos.runtime.usage import Turns, Usage
from flowos.runtime.waiting import Pending, Queue
from flowos_schedulers.batch import Batch
from flowos_schedulers.inference import Inference
from flowos_schedulers.mpi import Mpi
from flowos_schedulers.service import Service
from flowos_schedulers.stream import Stream
from flowos_schedulers.training import Training
from tests.runtime.cells import small_cell, wanted
from tests.runtime.theatre import Theatre


def cell_of(gpus: int, **weights: int) -> Cell:
    cell = small_cell(nodes=1, gpus=gpus, fpgas=0)
    for name, weight in weights.items():
        cell.add(Tenant(name, weight))
    return cell


def of(tenant: str, count: int, **more) -> list[SliceSpec]:
    return [wanted(f"{tenant}{n:02}", gpus=1, tenant=tenant, **more) for n in range(count)]


def rules(theatre: Theatre, said: PolicyRules) -> None:
    theatre.write(Put(keys.POLICIES, encode(said)))


def placed(theatre: Theatre) -> dict[str, int]:
    names = [key.split("/")[1] for key in theatre.records("placement/")]
    return {name: names.count(name) for name in sorted(set(names)) if not name.startswith("~")}


# ------------------------------------------------------------------------------------------- tenants


def test_tenants_that_ask_for_more_than_there_is_get_parts_by_their_weights():
    theatre = Theatre(cell_of(12, a=1, b=2, c=1))
    theatre.scheduler(alone=True)
    theatre.settle()
    # All at once, and one tenant's before the other's; c wants less than its part.
    theatre.submit(*of("a", 12), *of("b", 12), *of("c", 1))
    theatre.settle()
    assert placed(theatre) == {"a": 4, "b": 7, "c": 1}


def test_what_comes_free_goes_to_the_tenant_that_has_the_least():
    theatre = Theatre(cell_of(8, a=1, b=1))
    theatre.scheduler(alone=True)
    theatre.submit(*of("a", 12))
    theatre.settle()
    theatre.submit(*of("b", 12))
    theatre.settle()
    assert placed(theatre) == {"a": 8}
    theatre.take_away("a/a00", "a/a01", "a/a02", "a/a03")
    theatre.settle()
    assert placed(theatre) == {"a": 4, "b": 4}


def test_of_tenants_with_equal_parts_a_more_important_slice_goes_first_all_the_same():
    theatre = Theatre(cell_of(2, a=1, b=1))
    theatre.submit(*of("a", 2), *of("b", 2, priority=1))
    theatre.scheduler(alone=True)
    theatre.settle()
    assert placed(theatre) == {"b": 2}


def test_first_come_first_served_can_be_set_by_the_cells_rules():
    theatre = Theatre(cell_of(2, a=1, b=1))
    rules(theatre, PolicyRules(settings={"batch": {"fair": 0.0}}))
    theatre.submit(*of("a", 2), *of("b", 2))
    theatre.scheduler(alone=True)
    theatre.settle()
    assert placed(theatre) == {"a": 2}


def test_a_setting_that_changes_holds_from_then_on_and_goes_back_with_the_rule():
    theatre = Theatre(cell_of(2, a=1))
    policy = Batch()
    theatre.scheduler(policy=policy, alone=True)
    theatre.settle()
    assert policy.settings == {"fair": 1.0}
    rules(theatre, PolicyRules(settings={"batch": {"fair": 0.0}, "mpi": {"leaf": 1.0}}))
    theatre.settle()
    assert policy.settings == {"fair": 0.0}
    rules(theatre, PolicyRules())
    theatre.settle()
    assert policy.settings == {"fair": 1.0}


def test_a_slice_that_never_fits_keeps_nobody_of_its_tenant_back():
    theatre = Theatre(cell_of(2, a=1, b=1))
    theatre.scheduler(alone=True)
    theatre.submit(*of("a", 2))
    theatre.settle()
    theatre.submit(wanted("never", gpus=9, tenant="b"), *of("b", 1), *of("c", 0))
    theatre.settle()
    theatre.advance(5.0)
    theatre.settle()
    theatre.submit(wanted("more", gpus=1, tenant="a"))
    theatre.settle()
    theatre.take_away("a/a00")
    theatre.settle()
    assert placed(theatre) == {"a": 1, "b": 1}


# ------------------------------------------------------------------------------------------- waiting


def test_who_waits_gains_priority_as_the_cells_rules_say():
    theatre = Theatre(cell_of(1, a=1))
    rules(theatre, PolicyRules(ageing_seconds=10.0))
    theatre.scheduler(alone=True)
    theatre.submit(wanted("first", gpus=1))
    theatre.settle()
    theatre.submit(wanted("old", gpus=1))
    theatre.settle()
    theatre.advance(35.0)
    theatre.settle()
    theatre.submit(wanted("new", gpus=1, priority=2))  # less than what 35 s are worth
    theatre.settle()
    theatre.take_away("default/first")
    theatre.settle()
    assert theatre.held("default/old")
    assert not theatre.held("default/new")


# ----------------------------------------------------------------------------------- a long queue

MANY = 2_000


def queue_of(policy, tenants: int = 4) -> tuple[CellView, Queue, Ranks]:
    view = CellView(cell=cell_of(8, **{f"t{n}": n + 1 for n in range(tenants)}))
    queue = Queue()
    ranks = Ranks(
        view,
        Guarded(policy, view, lambda: 0.0),
        queue,
        wall=lambda: 0.0,
        stopwatch=lambda: 0.0,
        turns=Turns(Usage(view)) if policy.reorders else None,
    )
    for n in range(MANY):
        spec = wanted(f"s{n:04}", gpus=1 + n % 3, tenant=f"t{n % tenants}")
        entry = view.slices[spec.id] = Entry(Slice(spec), n + 1, n + 1)
        queue.slices[spec.id] = Pending(ranks.order(entry, 0.0, 0.0), 0.0)
    queue.restart()
    return view, queue, ranks


@pytest.mark.parametrize("kind", [Batch, Service, Mpi, Training, Stream, Inference])
def test_a_place_in_the_queue_is_a_short_tuple_of_numbers_and_all_differ(kind):
    _, queue, _ = queue_of(kind())
    orders = [pending.order for pending in queue.slices.values()]
    assert all(len(order) <= 3 for order in orders)
    assert {type(part) for order in orders for part in order} <= {int, float}
    assert len(set(orders)) == MANY


def test_a_queue_that_is_put_in_order_anew_asks_once_for_each_slice():
    asked: list[str] = []

    class Counting(Batch):
        def order(self, waits: Waits) -> Order:
            asked.append(waits.spec.name)
            return super().order(waits)

    _, queue, ranks = queue_of(Counting())
    asked.clear()
    before = {name: pending.order for name, pending in queue.slices.items()}
    ranks.refresh(1.0)
    assert sorted(asked) == sorted(name.partition("/")[2] for name in queue.slices)
    ranks.refresh(1.5)
    assert len(asked) == MANY, "it was put in order twice in a second"
    # Nothing has been placed, so nothing is another's turn.
    assert {name: pending.order for name, pending in queue.slices.items()} == before


def test_the_first_of_a_long_queue_are_of_all_tenants_by_weight():
    view, queue, _ = queue_of(Batch())
    engines = {f"t{n}": 0 for n in range(4)}
    for _ in range(100):
        name = queue.head()[1]
        engines[name.partition("/")[0]] += (
            view.slices[name].value.spec.engines["workers"].choices[0].count
        )
        queue.advance()
    whole = sum(engines.values()) / 10
    assert [round(count / whole) for count in engines.values()] == [1, 2, 3, 4]


# --------------------------------------------------------------------------------------------- gaps


@pytest.mark.parametrize(
    ("policy", "passes"),
    [(Batch(), {"short"}), (Mpi(), {"short"}), (Training(), {"short"}), (Service(), {"long"})],
    ids=lambda value: value.name if isinstance(value, Policy) else "",
)
def test_only_what_ends_before_the_first_can_start_fills_its_gap(policy, passes):
    theatre = Theatre(cell_of(4, a=1))
    theatre.controller()
    theatre.agent()
    theatre.scheduler(policy=policy, alone=True)

    def asked(name, gpus, seconds):
        return wanted(
            name, gpus=gpus, policy=policy.name, expected_seconds=seconds, run_for=seconds
        )

    theatre.submit(asked("now", 2, 100.0))
    theatre.play(1.0, lambda: theatre.phase("default/now") is Phase.RUNNING)
    theatre.submit(asked("large", 4, 100.0))
    theatre.settle()
    theatre.submit(asked("long", 2, 500.0), asked("short", 2, 50.0))
    theatre.settle()
    assert {n for n in ("long", "short", "large") if theatre.held(f"default/{n}")} == passes


# ---------------------------------------------------------------------- programs that place themselves


def test_a_program_with_a_scheduler_of_its_own_goes_by_the_cells_rules_too(memory):
    load_cell_into(memory, small_cell())
    said = PolicyRules(
        (Assignment("service", names=("web-*",), preemptible=True),),
        settings={"batch": {"fair": 0.0}},
    )
    memory.commit([Transaction((), (Put(keys.POLICIES, encode(said)),))])
    client = CellClient(memory, SystemClock())
    policy = Batch()
    with client.scheduler(policy) as scheduler:
        scheduler.place([wanted("web-a", gpus=1), wanted("job", gpus=1)])
    assert policy.settings == {"fair": 0.0}
    records = {r.key: decode(Slice, r.value).spec for r in memory.read(["slice/"]).records}
    assert records["slice/default/web-a"].policy == "service"
    assert records["slice/default/web-a"].preemptible
    assert records["slice/default/job"].policy == "batch"


def test_a_submission_goes_by_the_rule_as_it_is_at_that_moment(memory):
    load_cell_into(memory, small_cell())
    client = CellClient(memory, SystemClock())

    def served(name: str) -> str:
        client.submit([wanted(name, gpus=1)])
        (record,) = memory.read([f"slice/default/{name}"]).records
        return decode(Slice, record.value).spec.policy

    def say(said: PolicyRules) -> None:
        memory.commit([Transaction((), (Put(keys.POLICIES, encode(said)),))])

    assert served("a") == "batch"
    say(PolicyRules(default="mpi"))
    assert served("b") == "mpi"  # the client had read that there was no rule
    say(PolicyRules(default="stream"))
    assert served("c") == "stream"
