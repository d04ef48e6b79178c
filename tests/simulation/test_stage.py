"""One thread, several machines, a clock that jumps: do they get on, and do they ever come to rest?"""

import pytest

from flowos.drivers.sim import SimDriver, SimSettings
from flowos.drivers.step import Verb
from flowos.model import keys
from flowos.model.codec import decode
from flowos.model.slice import Phase, Reason, Slice, SliceSpec
from flowos.model.view import CellView
from flowos.protocol.proposal import Draft, Proposal
from flowos.runtime.agent import Agent
from flowos.runtime.lifecycle import Lifecycle
from flowos.runtime.loading import load_cell_into
from flowos.runtime.processes import CONTROLLER_FOLLOWS
from flowos.runtime.scheduling import SCHEDULER_FOLLOWS, Scheduling
from flowos.runtime.session import ProcessSession
from flowos.simulation.jobs import Job
from flowos.simulation.replay import NEVER, _Names
from flowos.simulation.stage import Stage, VirtualClock
from flowos.verify.history import verify_history
from flowos_schedulers.batch import Batch
from flowos_store.memory import MemoryStore
from tests.runtime.cells import small_cell, wanted


class Play:
    """A stage with a scheduler, a controller and an agent, as a replay has it."""

    def __init__(
        self, *, now: float = 0.0, seconds: dict[Verb, float] | None = None, **cell
    ) -> None:
        self.clock = VirtualClock(now)
        self.store = MemoryStore(self.clock)
        load_cell_into(self.store, small_cell(**cell))
        self.session = ProcessSession(self.store, self.clock, "client", "play", ttl_seconds=10**9)
        self.view = CellView()
        attempts = iter(f"a{number}" for number in range(10**6))

        def fits(proposals):
            return self.store.fits([p.transaction for p in proposals])

        def fence():
            return self.session.fence

        self.scheduler = Scheduling(
            self.view, Batch(), session=self.session.id, fence=fence, seed=0, fits=fits,
            stopwatch=self.clock.monotonic, new_attempt=lambda: next(attempts), alone=True,
        )  # fmt: skip
        lifecycle = Lifecycle(
            self.view, fence=fence, wall=self.clock.wall, new_attempt=lambda: next(attempts),
            fits=fits, rules=NEVER,
        )  # fmt: skip
        agent = Agent(
            self.view, SimDriver(SimSettings(seconds or {})), fence=fence,
            serves=lambda _: True, fits=fits,
        )  # fmt: skip
        self.stage = Stage(self.store, self.view, self.clock, [self.scheduler, lifecycle, agent])
        self.stage.start([*dict.fromkeys([*SCHEDULER_FOLLOWS, *CONTROLLER_FOLLOWS])])

    def submit(self, *specs: SliceSpec) -> None:
        proposals = []
        for spec in specs:
            draft = Draft(fence=self.session.fence)
            draft.seen(keys.slice_(spec.id), 0)
            draft.put(keys.slice_(spec.id), Slice(spec, submitted_at=self.clock.now))
            proposals.append(draft.proposal("submit", spec.id, self.view))
        self.stage.write(proposals)
        self.stage.settle()

    def run(self) -> None:
        """Jump from event to event until there is none."""
        for _ in range(1000):
            at = self.stage.next_at()
            if at == float("inf"):
                return
            self.clock.now = max(self.clock.now, at)
            self.stage.settle()
        raise AssertionError(f"no end at {self.clock.now}")

    def slice(self, name: str) -> Slice:
        key = f"slice/default/{name}"
        (record,) = (r for r in self.store.read([key]).records if r.key == key)
        return decode(Slice, record.value)

    def left(self) -> list[str]:
        found = self.store.read(["claim/", "placement/", "order/", "report/"]).records
        return [record.key for record in found]


def test_machines_that_share_a_view_bring_slices_to_their_end():
    play = Play(seconds={Verb.LOAD: 0.5, Verb.SCRUB: 0.1})
    play.submit(
        wanted("a", gpus=3, fpgas=1, ring=True, run_for=5.0),
        wanted("b", gpus=2, run_for=1.0),
        wanted("c", gpus=1, share=300, run_for=1.0),
    )
    play.run()
    ends = [play.slice(name).end for name in "abc"]
    assert [end.phase for end in ends if end] == [Phase.DONE] * 3
    assert play.left() == []
    assert verify_history(play.store).violations == ()
    assert play.clock.now == pytest.approx(6.7, abs=0.2)


def test_what_a_stage_writes_is_seen_by_all_machines_and_observers_at_once():
    play = Play()
    told: list[Proposal] = []
    play.stage.observers.append(told.append)
    play.submit(wanted("a", gpus=1))
    assert [proposal.step for proposal in told] == ["submit", "commit", "report", "start"]
    assert play.view.revision == play.store.revision
    assert set(play.view.placements) == {"default/a"}
    assert play.view.placements["default/a"].modified == play.store.revision


def test_the_view_of_a_stage_says_what_a_listing_would():
    play = Play()
    play.submit(wanted("a", gpus=2, ring=True, run_for=1.0), wanted("b", gpus=1, share=500))
    fresh = CellView()
    fresh.load(play.store.read(["slice/", "placement/", "order/", "report/", "session/"]).records)
    for table in ("slices", "placements", "orders", "reports", "holders", "shares", "lanes_taken"):
        assert getattr(play.view, table) == getattr(fresh, table), table


def test_a_slice_too_large_for_the_store_waits_with_a_reason_and_ends_no_replay():
    play = Play(nodes=4, gpus=4, lanes=64)
    play.store._operations_max = 8
    play.submit(wanted("large", gpus=14), wanted("small", gpus=1, run_for=1.0))
    play.run()
    assert play.view.reasons["default/large"].value.reason is Reason.INFEASIBLE
    assert play.slice("small").end


@pytest.mark.parametrize("now", [0.0, 1e7 + 0.1, 1e9 + 1 / 3])
def test_a_time_limit_comes_to_rest_however_late_it_is(now):
    # Far from zero, the clock's steps are coarser than what is left of a limit.
    play = Play(now=now)
    play.submit(wanted("a", gpus=1, time_limit_seconds=1 / 3))
    play.run()
    end = play.slice("a").end
    assert end is not None
    assert end.reason is Reason.TIME_LIMIT


def test_a_stage_with_nothing_to_do_waits_for_nothing():
    play = Play()
    play.run()
    assert play.clock.now == 0.0
    assert play.stage.commits == 0


def job(name: str) -> Job:
    return Job(name, 0.0, 1.0, 1, 1000, 0, 0)


def test_every_job_gets_a_slice_name_of_its_own():
    names = _Names()
    long = "x" * 70
    given = [
        names.of(job(name))
        for name in ("a", "a", "a-2", "a", "A", long, f"{long}y", long, "b-", "b", "")
    ]
    assert len(set(given)) == len(given)
    assert given[:5] == ["a", "a-2", "a-2-2", "a-3", "a-4"]
    assert all(len(name) <= 63 for name in given)
    assert all(not name.endswith("-") for name in given)
