"""What does an agent make of a store that is not the one it knew, and of devices that others used?"""

from flowos.drivers.sim import SimDriver, SimSettings
from flowos.drivers.step import Step, Verb
from flowos.model import keys
from flowos.model.codec import encode
from flowos.model.placement import Order, Report
from flowos.model.slice import Run
from flowos.model.transaction import Committed, Conflicted, Versioned
from flowos.model.view import CellView
from flowos.protocol.proposal import Fence
from flowos.runtime.agent import CONFIRM, RETRY_SECONDS, Agent
from flowos.runtime.machine import Commit

FENCE = Fence("session/agents/a@1", 5)
GPU, FPGA = "engine/n0/gpu0", "engine/n0/fpga0"
MINE = Order(
    slice="default/t",
    units=(FPGA,),
    tasks={"n0/fpga0": 0},
    bitstreams={"n0/fpga0": "sum@1"},
    run=Run(for_seconds=100.0),
)


def ordered(attempt: str, order: Order, revision: int) -> Versioned:
    return Versioned(keys.order("n0", attempt), encode(order), revision, revision)


class Bench:
    """An agent of n0 on a driver, told by hand what is listed and what the store answers."""

    def __init__(self, driver: SimDriver | None = None, **seconds: float) -> None:
        self.driver = driver or SimDriver(SimSettings({Verb(v): s for v, s in seconds.items()}))
        self.agent = Agent(
            CellView(),
            self.driver,
            fence=lambda: FENCE,
            serves="n0".__eq__,
            fits=lambda _proposals: True,
        )
        self.reported: dict[str, Report] = {}
        self.asked = 0

    def lists(self, *records: Versioned, revision: int = 100) -> None:
        self.agent.view.clear()
        self.agent.view.load(records)
        self.agent.view.progressed(revision)
        self.agent.relisted()

    def until(self, now: float, *, knows: bool = True) -> None:
        """Let it work until a moment; `knows` whether the store has its session."""
        for instruction in self.agent.step(now):
            assert isinstance(instruction, Commit)
            answers = []
            for proposal in instruction.proposals:
                assert FENCE.compare in proposal.transaction.compares
                self.asked += proposal.step == CONFIRM
                answers.append(Committed(101) if knows else Conflicted(101))
            self.agent.answered(instruction, answers, now)

    @property
    def up(self) -> dict[str, Order]:
        return {there.attempt: there.order for there in self.driver.standing()}


def test_orders_that_vanish_from_a_listing_are_torn_down_only_in_the_store_of_this_session():
    bench = Bench()
    bench.lists(ordered("a1", MINE, 90))
    for now in range(5):
        bench.until(now)
    assert bench.up["a1"] == MINE
    bench.lists(revision=3)  # a fresh etcd, at the same address
    for now in range(5, 10):
        bench.until(now, knows=False)
    assert bench.up["a1"] == MINE
    assert bench.asked > 1  # it asks again, but not all the time
    assert bench.asked <= 6
    bench.until(10 + RETRY_SECONDS)  # it is the same etcd after all, and the order is gone
    for now in range(12, 16):
        bench.until(now)
    assert bench.up == {}


def test_an_order_that_is_deleted_while_it_is_followed_needs_no_question():
    bench = Bench()
    bench.lists(ordered("a1", MINE, 90))
    for now in range(5):
        bench.until(now)
    bench.lists(ordered("a1", Order(slice="default/t"), 91))
    for now in range(5, 10):
        bench.until(now)
    assert bench.up == {}
    assert bench.asked == 0


def test_a_new_agent_tears_down_what_the_driver_has_up_for_no_order():
    first = Bench()
    first.lists(ordered("newer", MINE, 90))
    for now in range(5):
        first.until(now)
    again = Bench(first.driver)
    again.lists(revision=3)
    for now in range(5, 10):
        again.until(now)
    assert again.up == {}


def test_what_is_up_and_ordered_goes_on_without_a_new_start():
    first = Bench()
    first.lists(ordered("a1", MINE, 90))
    for now in range(5):
        first.until(now)
    begun: list[Verb] = []
    again = Bench(first.driver)
    begin = again.driver.begin

    def noted(step: Step, now: float) -> None:
        begun.append(step.verb)
        begin(step, now)

    again.driver.begin = noted  # type: ignore[method-assign]
    again.lists(ordered("a1", MINE, 7), revision=9)  # in a store whose revisions are lower
    for now in range(5, 10):
        again.until(now)
    assert begun == []
    (work,) = again.agent._work.values()
    assert work.reported.applied == 7
    again.until(200)
    assert work.report.exit_code == 0


def test_what_ended_while_only_a_lost_store_was_told_is_reported_and_not_run_again():
    first = Bench()
    first.lists(ordered("a1", MINE, 90))
    for now in range(5):
        first.until(now)
    first.until(150)  # its tasks end; the order stays, as in a backup of before
    again = Bench(first.driver)
    again.lists(ordered("a1", MINE, 7), revision=9)
    again.until(151)
    (work,) = again.agent._work.values()
    assert (work.reported.applied, work.reported.exit_code) == (7, 0)
    assert not work.running
    assert again.driver.next_at() > 10**9


def test_a_quarantine_is_reported_when_nothing_is_up_that_no_order_names():
    first = Bench(scrub=10.0)
    first.lists(ordered("newer", MINE, 90), ordered("a1", Order("default/s", units=(GPU,)), 91))
    for now in range(5):
        first.until(now)
    again = Bench(first.driver)
    name = "~quarantine/n0/q1"
    again.lists(
        ordered("q1", Order(slice=name), 7), ordered("a1", Order("default/s", units=(GPU,)), 8)
    )

    def reported() -> bool:
        work = again.agent._work.get(("n0", "q1"))
        return work is not None and work.reported.applied == 7

    for now in range(5, 15):
        again.until(now)
        assert not reported()
    for now in range(15, 30):
        again.until(now)
    assert reported()
    assert "newer" not in again.up
