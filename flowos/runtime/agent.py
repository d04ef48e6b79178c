"""The agent's loop: it makes devices equal to its orders, scrubs what went down, and reports.

One machine acts for any number of nodes and switches. For each attempt at a place it keeps what
is up; an order that differs from that is carried out in stages, first down, then up; a unit is
built only when no other attempt has it up here. Then the order's mod_revision is reported, in a
transaction that compares the order.

What is up is known from the driver, if it says so with authority (`Remembering`), and from what
this life has built. A life that begins without such a driver knows no place: an order that asks
for nothing does not say what it asked for before, and nobody else does. So before the first order
at a place is built or reported that its predecessor has not reported in just this revision, the
place is swept: all that no living order names is stopped, disconnected and scrubbed. What a living
order names whose building was once reported is kept, and taken over by building it again. A place
is swept at most once in a life, and not before something is to change there, so an agent of
thousands of places that starts anew in the midst of its cell has nothing to do at most of them.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from math import inf
from typing import Final

from flowos.drivers.step import Driver, Finished, Remembering, Step, Verb
from flowos.model import keys
from flowos.model.life import is_quarantine
from flowos.model.placement import Gang, Joined, Observed, Order, Report
from flowos.model.transaction import Committed, Conflicted
from flowos.model.units import engine_unit, is_divisible, is_laid, subject_of
from flowos.model.view import Applied, CellView, Entry
from flowos.protocol.proposal import Draft, Fence, Proposal, writes
from flowos.runtime.machine import Answer, Commit, Instruction, Refused

GROUP_MAX: Final = 24  # a report is three compares and a few puts
RETRY_SECONDS: Final = 1.0  # after a teardown that failed, or a report that was refused
CONFLICT_SECONDS: Final = 0.05  # after a report that came too late
CONFIRM: Final = "confirm"
TEARDOWN: Final = frozenset({Verb.STOP, Verb.DISCONNECT, Verb.SCRUB, Verb.POWER_OFF})

_NOTHING: Final = Order(slice="")


@dataclass(slots=True)
class _Work:
    """One attempt at one place.

    Attributes:
        wanted: What the order says; nothing once it is gone.
        modified: The order's mod_revision; 0 = it is gone.
        up: What the devices are.
        target: What they will be when the stages are through.
        planned: The order's mod_revision that the stages are for.
        failing: Why a step of these stages could not be done; the others are waited for.
        failed_at: The order's mod_revision that could not be built.
        news: What is to be written of engines, with the next report.
        sent: The same, on its way.
        told_at: The revision of the last report that has arrived.
        own: Whether this life has built it: then `up` and `target` are all there is of it.
        again: Not looked at since the session began; `modified` is what it was in the last one.
        lit_until: Until when the circuits here stay, for tasks elsewhere that were told to end.
    """

    place: str
    attempt: str
    wanted: Order = _NOTHING
    modified: int = 0
    up: Order = _NOTHING
    target: Order = _NOTHING
    stages: list[list[Step]] = field(default_factory=list)
    steps: set[str] = field(default_factory=set)
    running: bool = False
    planned: int = 0
    failing: str = ""
    failed_at: int = 0
    report: Report = Report()
    reported: Report = Report()
    news: dict[str, Observed] = field(default_factory=dict)
    sent: dict[str, Observed] = field(default_factory=dict)
    sending: bool = False
    told_at: int = 0
    alone: bool = False  # a group with its report was refused
    own: bool = False
    again: bool = False
    lit_until: float = inf

    @property
    def key(self) -> tuple[str, str]:
        return self.place, self.attempt

    @property
    def busy(self) -> bool:
        return bool(self.stages or self.steps)


class Agent:
    """The machine that acts for a set of places."""

    def __init__(
        self,
        view: CellView,
        driver: Driver,
        *,
        fence: Callable[[], Fence],
        serves: Callable[[str], bool],
        fits: Callable[[Sequence[Proposal]], bool],
        on_new_cell: Callable[[], None] = lambda: None,
    ) -> None:
        """Start with nothing up.

        Args:
            view: Fed by the shell: orders, reports and observed engines of its places.
            driver: Carries out steps.
            fence: Returns the session's fence now.
            serves: Whether a place is this agent's.
            fits: Whether the store takes these steps in one request.
            on_new_cell: Called when the cell was loaded anew: its places may be others.
        """
        self.view = view
        self._on_new_cell = on_new_cell
        self._driver = driver
        self._fence = fence
        self._serves = serves
        self._fits = fits
        self._work: dict[tuple[str, str], _Work] = {}
        self._due: dict[tuple[str, str], None] = {}
        self._built_for: dict[tuple[str, str], tuple[str, str]] = {}  # (place, unit) -> work
        self._blocked: set[tuple[str, str]] = set()
        self._preparing: dict[tuple[str, str], tuple[str, str]] = {}  # shared engines, the same
        self._engines: dict[str, Observed] = {}  # as this agent last saw them
        self._tellers: dict[str, _Work] = {}  # who has the last news of an engine
        self._on_the_way: set[str] = set()  # engines of which something was sent, not answered
        self._held_back: set[tuple[str, str]] = set()
        self._left: dict[tuple[str, str], list[str]] = {}  # engines that tasks were left on
        self._timers: dict[tuple[str, str], float] = {}
        self._lingering: set[tuple[str, str]] = set()  # with circuits that others may still need
        self._retries: list[tuple[float, Step]] = []
        self._vanished: set[tuple[str, str]] = set()  # their orders were not in the last listing
        self._confirm_at = inf  # when the store is asked whether it is the one of this session
        self._unclean: set[tuple[str, str]] = set()  # asked for nothing, where something stands
        self._at: dict[str, set[str]] = {}  # place -> attempts that have an order or a work there
        self._begun = False
        self._knows_all = False  # the driver has said what is up
        self._known: set[str] = set()  # places that were swept, or where nothing had been
        self._sweeps: dict[str, list[Step]] = {}  # place -> what is still to be done, in order
        self._spared: dict[tuple[str, str], frozenset[str]] = {}  # what sweeps have left up

    def go_on(self, *, fence: Callable[[], Fence], on_new_cell: Callable[[], None]) -> None:
        """Keep what is known of devices for a new session, in this store or another.

        Nothing that the last session asked for can still happen, and no revision of it counts:
        revisions of two stores are not compared.
        """
        self.view = CellView()
        self._fence, self._on_new_cell = fence, on_new_cell
        for work in self._work.values():
            work.again, work.sending, work.alone = True, False, False
            work.news, work.sent = {}, {}
        named = {subject_of(u) for w in self._work.values() for u in _units(w) if _computes(u)}
        self._engines = {e: seen for e, seen in self._engines.items() if e in named}
        self._tellers.clear()
        self._on_the_way.clear()
        self._held_back.clear()
        self._vanished.clear()
        self._confirm_at = inf

    # -- what happened

    def changed(self, change: Applied) -> None:
        """Note which orders to look at again."""
        if change.family == "cell":
            self._on_new_cell()
        if change.family == "order":
            place, _, attempt = change.name.rpartition("/")
            if self._serves(place):
                self._note(place, attempt)
        if change.family == "report" and self._lingering:
            attempt = change.name.rpartition("/")[2]
            self._due |= {key: None for key in self._lingering if key[1] == attempt}

    def relisted(self) -> None:
        """Look at every order again; what is up but in no order is torn down.

        Orders that were there and are not listed may be gone, or this may be another store, empty
        or half restored, at the same address. What they had built stays until the store has said
        that it knows this session.
        """
        self._due |= dict.fromkeys(self._work)
        self._vanished = {
            key
            for key, work in self._work.items()
            if work.modified and not work.again and not self._is_ordered(*key)
        }
        self._confirm_at = -inf if self._vanished else inf
        self._take_over()
        self._left.clear()
        for engine, seen in self.view.observed.items():
            place = engine.partition("/")[0]
            if seen.task and self._serves(place) and (place, seen.task) not in self._work:
                self._left.setdefault((place, seen.task), []).append(engine)
        for place, attempt in self._left:
            self._note(place, attempt)
        for attempt, places in self.view.orders.items():
            for place in places:
                if self._serves(place):
                    self._note(place, attempt)

    def answered(self, commit: Commit, answers: Sequence[Answer], now: float) -> None:
        """Note what the store knows; a report that came too late is thought over again."""
        for proposal, answer in zip(commit.proposals, answers, strict=True):
            if proposal.step == CONFIRM:
                self._confirmed(answer, now)
                continue
            place, _, attempt = proposal.identifier.rpartition("/")
            work = self._work.get((place, attempt))
            if work is None:
                continue
            work.sending = False
            sent, work.sent = work.sent, {}
            self._on_the_way -= sent.keys()
            self._due |= dict.fromkeys(self._held_back)
            self._held_back.clear()
            if isinstance(answer, Committed):
                work.alone = False
                if any(key.startswith("report/") for key in writes([proposal])):
                    work.told_at = answer.revision
                self._due[work.key] = None
                continue
            # Most often the order is newer than the view; its change brings this up again.
            work.reported = replace(work.reported, applied=-1)
            # Another attempt may have changed an engine since; then that is the news.
            work.news |= {e: seen for e, seen in sent.items() if self._engines.get(e) == seen}
            work.alone = isinstance(answer, Refused)
            pause = CONFLICT_SECONDS if isinstance(answer, Conflicted) else RETRY_SECONDS
            self._timers[work.key] = now + pause

    # -- what to do

    def needs(self) -> int:
        """Return 0: each order is carried out as it is, whatever else is on its way."""
        return 0

    def wake_at(self) -> float:
        """Return when a step ends or is to be tried again."""
        times = [self._driver.next_at(), self._confirm_at, *self._timers.values()]
        return min(times + [at for at, _ in self._retries])

    def step(self, now: float) -> list[Instruction]:
        """Carry on with every order that can go on, and report."""
        for key in [k for k, at in self._timers.items() if at <= now]:
            del self._timers[key]
            self._due[key] = None
        for at, step in list(self._retries):
            if at <= now:
                self._retries.remove((at, step))
                self._driver.begin(step, now)
        reports: dict[tuple[str, str], _Work] = {}
        while True:
            for finished in self._driver.finished(now):
                self._step_finished(finished, now)
            if not self._due:
                break
            due, self._due = self._due, {}
            for key in due:
                work = self._advance(key, now)
                if work is not None:
                    reports[key] = work
        return [*self._confirm(now), *self._send(reports.values())]

    def _is_ordered(self, place: str, attempt: str) -> bool:
        return place in self.view.orders.get(attempt, {})

    def _confirm(self, now: float) -> list[Instruction]:
        """Ask the store whether this session is its own, where orders have vanished."""
        if now < self._confirm_at:
            return []
        self._confirm_at = inf
        draft = Draft(fence=self._fence())
        return [Commit((draft.proposal(CONFIRM, CONFIRM, self.view),))]

    def _confirmed(self, answer: Answer, now: float) -> None:
        if not isinstance(answer, Committed):  # most likely this session is just being given up
            self._confirm_at = now + RETRY_SECONDS if self._vanished else inf
            return
        self._due |= dict.fromkeys(self._vanished)
        self._vanished.clear()

    def _note(self, place: str, attempt: str) -> None:
        """Look at an attempt at a place again."""
        self._due[place, attempt] = None
        self._at.setdefault(place, set()).add(attempt)

    def _forget(self, place: str, attempt: str) -> None:
        """Nothing is there any more of an attempt at a place, and nothing wanted."""
        there = self._at.get(place)
        if there is not None:
            there.discard(attempt)
            if not there:
                del self._at[place]

    def _take_over(self) -> None:
        """Take as up what the driver says that an earlier agent has left up."""
        if self._begun:  # what is up since then is this life's own
            return
        self._begun = True
        standing = self._driver.standing() if isinstance(self._driver, Remembering) else None
        self._knows_all = standing is not None
        for there in standing or ():
            key = there.place, there.attempt
            if not self._serves(there.place):
                continue
            work = self._work[key] = _Work(*key, up=there.order, running=there.running, own=True)
            known = self.view.reports.get(there.attempt, {}).get(there.place)
            if known is not None:
                work.report = work.reported = known.value
            if (
                there.exit_code is not None
            ):  # told to an agent, and perhaps to no store that is left
                work.report = replace(work.report, exit_code=there.exit_code)
            exclusive = [(there.place, unit) for unit in _exclusive(there.order)]
            self._built_for |= dict.fromkeys(exclusive, key)
            for engine in there.order.tasks:
                if not there.order.units or f"aggregator/{engine}" in there.order.units:
                    continue  # of an aggregator nobody asks
                bitstream = there.order.bitstreams.get(engine, "")
                self._observe(work, engine, power="on", bitstream=bitstream, task=there.attempt)
            self._note(*key)

    def _advance(self, key: tuple[str, str], now: float) -> _Work | None:
        """Move one work on; return it where it has something to report."""
        place, attempt = key
        order = self.view.orders.get(attempt, {}).get(place)
        work = self._work.get(key)
        if work is None:
            left = self._left.pop(key, [])
            if order is None and not left:
                self._forget(place, attempt)
                return None
            work = self._work[key] = _Work(place, attempt)
            self._adopt(work, left, order.value if order else _NOTHING)
            known = self.view.reports.get(attempt, {}).get(place)
            if known is not None:
                work.report = work.reported = known.value
        again = work.again
        if again:
            self._resume(work, order)
        if order is None:
            if key in self._vanished:
                return None
            work.wanted, work.modified = _NOTHING, 0
        elif (
            again or order.modified > work.modified
        ):  # never an order older than one that was built
            work.wanted, work.modified = order.value, order.modified
        if work.busy:
            return self._telling(work, building=True)
        if work.failed_at and work.failed_at == work.modified:
            return self._telling(work, building=True)  # the controller decides what now
        if self._is_held_by_a_sweep(work, now):
            return None
        if not _same(work.up, work.wanted):
            if self._lingers(work, now):
                self._lingering.add(key)
                self._timers[key] = work.lit_until
                return None
            self._lingering.discard(key)
            if self._begin(work, now):
                self._due[key] = None  # steps that take no time end in this round
            return None
        if order is None and not work.news and not work.sending:
            del self._work[key]
            self._forget(place, attempt)
            self._due |= dict.fromkeys(self._unclean)
            self._unclean.clear()
            return None
        if order is not None and is_quarantine(order.value.slice) and self._is_unclean(place):
            self._unclean.add(key)
            return None
        self._run(work, now)
        return self._telling(work, building=False)

    def _resume(self, work: _Work, order: Entry[Order] | None) -> None:
        """Look at a work for the first time in a new session."""
        known = self.view.reports.get(work.attempt, {}).get(work.place)
        same = order is not None and order.value == work.wanted
        modified = order.modified if order is not None and same else -1
        before, work.again = work.report, False
        work.told_at = 0  # it may be another store
        work.planned = modified if work.planned == work.modified else -1
        work.failed_at = modified if same and 0 < work.failed_at == work.modified else 0
        work.report = work.reported = known.value if known is not None else Report()
        if before.exit_code is not None:  # told to a session, and perhaps to no store that is left
            work.report = replace(work.report, exit_code=before.exit_code)
        if work.failed_at:
            work.report = replace(work.report, building=modified, failed=before.failed)
        for unit in sorted(_units(work)):
            engine = subject_of(unit)
            seen = self._engines.get(engine) if _computes(unit) else None
            if seen is not None and seen != self.view.observed.get(engine, Observed()):
                work.news[engine] = seen
                self._tellers[engine] = work

    def _is_unclean(self, place: str) -> bool:
        """Whether anything is up at a place that none of its orders names."""
        return any(
            (place, attempt) in self._work and not self._is_ordered(place, attempt)
            for attempt in self._at.get(place, ())
        )

    # -- places of which nobody knows what is up

    def _is_held_by_a_sweep(self, work: _Work, now: float) -> bool:
        """Whether a work has to wait until its place is swept; begins the sweep if need be."""
        swept = work.place in self._sweeps
        spared = self._spared.get(work.key)
        if spared and not swept and not work.own and not spared <= {*work.wanted.units}:
            self._known.discard(work.place)  # it was left up, and is not to be up any more
        if self._knows_all or work.own or work.place in self._known:
            # What this life has up may go down meanwhile: that takes nothing from anybody.
            up, wanted = work.up, work.wanted
            return swept and not _same(up, wanted) and not _gone(up, wanted)
        if not work.up.units:
            if not work.modified or (work.wanted.off and not swept):
                return False
            if work.report.applied == work.modified:  # an earlier life has said so
                return swept
        if not swept:
            self._sweep(work.place, now)
        return True

    def _sweep(self, place: str, now: float) -> None:
        """Begin to tear down all at a place that is not known to be wanted."""
        keep = {}
        for attempt in sorted(self._at[place]):
            there = self._kept(place, attempt)
            if there.units or there.crossbar:
                keep[attempt] = there
        verbs = (Verb.STOP, Verb.DISCONNECT, Verb.SCRUB)
        orders = {a: self.view.orders.get(a, {}).get(place) for a in sorted(self._at[place])}
        graces = {
            attempt: order.value.run.grace_seconds
            for attempt, order in orders.items()
            if order and order.value.run.grace_seconds and not self.view.applied(place, attempt)
        }
        steps = [Step(place, "", verb, "", _NOTHING, keep) for verb in verbs]
        first, *rest = [replace(steps[0], graces=graces) if graces else steps[0], *steps[1:]]
        self._sweeps[place] = rest
        self._driver.begin(first, now)
        self._look_again(place)  # steps that take no time end in this round

    def _look_again(self, place: str) -> None:
        self._due |= {(place, attempt): None for attempt in self._at.get(place, ())}

    def _kept(self, place: str, attempt: str) -> Order:
        """Return what a sweep must leave up for an attempt."""
        work = self._work.get((place, attempt))
        if work is not None and work.own:
            both = {*work.up.units, *work.target.units}
            return replace(work.target if work.busy else work.up, units=tuple(sorted(both)))
        order = self.view.orders.get(attempt, {}).get(place)
        report = self.view.reports.get(attempt, {}).get(place)
        if order is None or report is None or not (report.value.building or report.value.applied):
            return _NOTHING  # if anything is up for it, then nobody knows how it came there
        return order.value

    def _swept(self, finished: Finished, now: float) -> None:
        step = finished.step
        if step.place not in self._sweeps:
            return
        if finished.error:
            self._retries.append((now + RETRY_SECONDS, step))
        elif self._sweeps[step.place]:
            self._driver.begin(self._sweeps[step.place].pop(0), now)
            self._look_again(step.place)
        else:
            del self._sweeps[step.place]
            self._known.add(step.place)
            gone = [key for key in self._spared if key[0] == step.place]
            for key in gone:
                del self._spared[key]
            for attempt, there in step.keep.items():
                self._spared[step.place, attempt] = frozenset(there.units)
            for attempt in sorted(self._at.get(step.place, ())):
                work = self._work.get((step.place, attempt))
                if work is not None and not work.own and work.up.units:
                    work.target = _NOTHING  # tasks were left on these engines; not any more
                    self._arrived(work)
            self._look_again(step.place)

    def _adopt(self, work: _Work, engines: Iterable[str], order: Order) -> None:
        """Take what an earlier agent left behind as up, unless it is to be up again."""
        units = {engine_unit(e): e for e in engines if f"share/{e}" not in order.units}
        mine = tuple(sorted(units.keys() - set(order.units)))
        work.up = replace(work.up, units=mine)
        self._built_for |= {(work.place, unit): work.key for unit in mine}

    def _telling(self, work: _Work, *, building: bool) -> _Work | None:
        if work.sending:
            return None
        if not self._on_the_way.isdisjoint(work.news):
            self._held_back.add(work.key)  # what is said of an engine must arrive in order
            return None
        if work.modified and not work.wanted.off:
            if not building:
                work.report = replace(
                    work.report, applied=work.modified, building=work.modified, failed=""
                )
            elif work.wanted.units:
                work.report = replace(work.report, building=work.modified)
        return work if work.news or work.report != work.reported else None

    def _lingers(self, work: _Work, now: float) -> bool:
        """Whether circuits stay for a while: tasks at their ends may have something to save.

        A place with tasks knows when they have ended; a switch takes it from what other places
        report, where its agent hears of them, and else waits as long as tasks have at most.
        """
        grace = work.wanted.run.grace_seconds
        if not grace or work.running or not work.up.crossbar:
            return False
        work.lit_until = min(work.lit_until, now + grace)
        others = [place for place in self.view.orders.get(work.attempt, ()) if place != work.place]
        ends = [place for place in others if not self._crossbar_at(place, work.attempt)]
        over = bool(ends) and all(self.view.applied(place, work.attempt) for place in ends)
        return not over and now < work.lit_until

    def _crossbar_at(self, place: str, attempt: str) -> bool:
        there = self._work.get((place, attempt))
        return there is not None and bool(there.up.crossbar)

    def _begin(self, work: _Work, now: float) -> bool:
        """Plan the stages from what is up to what is wanted; False where others are in the way."""
        work.planned = work.modified
        down = set(_exclusive(work.up)) - set(_exclusive(work.wanted))
        down |= set(work.up.units) - set(work.wanted.units)
        if down:
            left = tuple(u for u in work.up.units if u not in down)
            loaded = {
                engine: bitstream
                for engine, bitstream in work.up.bitstreams.items()
                if engine_unit(engine) in left or f"share/{engine}" in left
            }
            work.target = _NOTHING
            if left:
                lit = tuple(turn for turn in work.up.crossbar if turn in work.wanted.crossbar)
                gang = _still_joined(work.up, work.wanted)
                work.target = replace(
                    work.up, units=left, bitstreams=loaded, off=(), crossbar=lit, gang=gang
                )
            work.stages = self._stages_down(work, down)
        else:
            here = [(work.place, unit) for unit in _exclusive(work.wanted)]
            shared = [u for u in work.wanted.units if u.startswith("share/")]
            engines = [(work.place, engine_unit(subject_of(u))) for u in shared]
            others = {self._built_for.get(u, work.key) for u in (*here, *engines)}
            # Who shares an engine finds it powered and loaded, or does so alone.
            others |= {self._preparing.get(u, work.key) for u in engines}
            if others - {work.key}:
                self._blocked.add(work.key)
                return False
            self._built_for |= dict.fromkeys(here, work.key)
            work.own = True
            work.target = work.wanted
            work.stages = self._stages_up(work)
            touched = {
                engine_unit(step.subject)
                for stage in work.stages
                for step in stage
                if step.verb in (Verb.POWER_ON, Verb.LOAD)
            }
            self._preparing |= {u: work.key for u in engines if u[1] in touched}
        self._next_stage(work, now)
        return True

    def _stages_down(self, work: _Work, down: set[str]) -> list[list[Step]]:
        engines = [subject_of(u) for u in sorted(down & set(work.up.units)) if _computes(u)]
        stages: list[list[Step]] = []
        # What a sweep has spared may run since an earlier life, which nobody here has seen begin.
        # Tasks go on while circuits are laid anew, but not without an engine or a host.
        stays = all(map(is_laid, down))
        if (work.running and not stays) or (work.key in self._spared and work.up.run.ends):
            stop = _step(work, Verb.STOP, work.up)
            graces = {work.attempt: work.wanted.run.grace_seconds}
            stages.append([replace(stop, graces=graces) if graces[work.attempt] else stop])
            work.running = False
        if work.up.crossbar or any(map(is_laid, down)):
            disconnect = _step(work, Verb.DISCONNECT, work.up)
            if any(map(is_laid, work.target.units)):  # these stay lit all the time
                disconnect = replace(disconnect, keep={work.attempt: work.target})
            stages.append([disconnect])
        # Tasks of a slice that has no engines leave things behind as well.
        wiped = engines or [subject_of(u) for u in sorted(down) if u.startswith("host/")]
        stages.append([_step(work, Verb.SCRUB, work.up, subject) for subject in wiped])
        return [stage for stage in stages if stage]

    def _stages_up(self, work: _Work) -> list[list[Step]]:
        order = work.wanted
        if order.off:
            return [[_step(work, Verb.POWER_OFF, order, engine) for engine in order.off]]
        new = set(order.units) - set(work.up.units)
        engines = [subject_of(u) for u in order.units if _computes(u)]
        off = [engine for engine in engines if self._observed(engine).power == "off"]
        load = [
            engine
            for engine, bitstream in order.bitstreams.items()
            if engine in off or self._observed(engine).bitstream != bitstream
        ]
        connect = bool(order.crossbar) or any(map(is_laid, new))
        connect = connect or _joined(order) != _joined(work.up)
        stages = [
            [_step(work, Verb.POWER_ON, order, engine) for engine in off],
            [_step(work, Verb.LOAD, order, engine) for engine in load],
            [_step(work, Verb.CONNECT, order)] if connect else [],
        ]
        return [stage for stage in stages if stage]

    def _next_stage(self, work: _Work, now: float) -> None:
        if work.steps:
            return
        if work.failing:
            self._give_up(work)
            return
        if not work.stages:
            self._arrived(work)
            return
        stage = work.stages.pop(0)
        work.steps = {_name(step) for step in stage}
        for step in stage:
            self._driver.begin(step, now)

    def _arrived(self, work: _Work) -> None:
        """The devices equal the target: let others have what went down, and look again."""
        gone = set(_exclusive(work.up)) - set(_exclusive(work.target))
        gone |= set(work.up.units) - set(work.target.units)
        if work.target.off:
            gone |= set(_exclusive(work.target))  # off is done; whoever wakes it comes next
        for unit in gone:
            if self._built_for.get((work.place, unit)) == work.key:
                del self._built_for[work.place, unit]
            if _computes(unit) and self._observed(subject_of(unit)).task == work.attempt:
                self._observe(work, subject_of(unit), task="")
        for engine in work.target.bitstreams:
            self._observe(work, engine, task=work.attempt)
        work.up = work.target
        self._due[work.key] = None
        if self._prepared(work) or gone:
            self._due |= dict.fromkeys(self._blocked)
            self._blocked.clear()

    def _prepared(self, work: _Work) -> bool:
        """Let others have the shared engines that this work has got ready."""
        mine = [unit for unit, key in self._preparing.items() if key == work.key]
        for unit in mine:
            del self._preparing[unit]
        return bool(mine)

    def _step_finished(self, finished: Finished, now: float) -> None:
        step = finished.step
        if not step.attempt:
            self._swept(finished, now)
            return
        work = self._work.get((step.place, step.attempt))
        if work is None:
            return
        self._due[work.key] = None
        if step.verb is Verb.RUN:
            if work.running and work.report.exit_code is None:
                work.report = replace(work.report, exit_code=finished.exit_code)
            return
        if _name(step) not in work.steps:
            return
        woken = step.verb is Verb.POWER_OFF and not work.modified
        if finished.error and step.verb in TEARDOWN and not woken:
            # What cannot be cleaned stays claimed: never let go, try again.
            self._retries.append((now + RETRY_SECONDS, step))
            return
        work.steps.discard(_name(step))
        if finished.error:
            # Steps beside it may still be under way: what they do to an engine must be known.
            work.failing = "" if woken else work.failing or finished.error
            if step.verb is Verb.LOAD:  # nobody knows what is in it now
                self._observe(work, step.subject, bitstream="")
            self._next_stage(work, now)
            return
        match step.verb:
            case Verb.POWER_ON:  # a bitstream does not survive without power
                self._observe(work, step.subject, power="on", bitstream="")
            case Verb.POWER_OFF:
                self._observe(work, step.subject, power="off", bitstream="", task="")
            case Verb.LOAD:
                self._observe(work, step.subject, bitstream=work.target.bitstreams[step.subject])
            case _:
                pass
        self._next_stage(work, now)

    def _give_up(self, work: _Work) -> None:
        """Say that the order cannot be built; what is half built counts as up, for the teardown."""
        work.stages.clear()
        work.up = replace(work.target, bitstreams={})
        work.failed_at = work.planned
        if work.modified == work.planned:  # else a newer order is there, perhaps to build nothing
            work.report = replace(work.report, failed=work.failing, building=work.modified)
        work.failing = ""
        self._due[work.key] = None
        if self._prepared(work):
            self._due |= dict.fromkeys(self._blocked)
            self._blocked.clear()

    def _run(self, work: _Work, now: float) -> None:
        order = work.wanted
        started = work.running or work.report.exit_code is not None
        if order.run.ends and order.units and not started:
            work.running = True
            self._driver.begin(_step(work, Verb.RUN, order), now)

    # -- engines as they are

    def _observed(self, engine: str) -> Observed:
        return self._engines.get(engine) or self.view.observed.get(engine) or Observed()

    def _observe(self, work: _Work, engine: str, **what: str) -> None:
        before = self._observed(engine)
        after = replace(before, **what)
        if after != before:
            teller = self._tellers.get(engine, work)
            if teller is not work and engine in teller.news:
                del teller.news[engine]
                self._due[teller.key] = None  # it may have nothing left to say
            self._tellers[engine] = work
            self._engines[engine] = work.news[engine] = after

    # -- telling the store

    def _send(self, works: Iterable[_Work]) -> list[Instruction]:
        instructions: list[Instruction] = []
        group: list[Proposal] = []
        for work in works:
            if work.sending or not (work.news or work.report != work.reported):
                continue
            if work.alone:
                instructions.append(Commit((self._proposal(work),)))
                continue
            proposal = self._proposal(work)
            if group and (len(group) == GROUP_MAX or not self._fits([*group, proposal])):
                instructions.append(Commit(tuple(group)))
                group = []
            group.append(proposal)
        if group:
            instructions.append(Commit(tuple(group)))
        return instructions

    def _proposal(self, work: _Work) -> Proposal:
        draft = Draft(fence=self._fence())
        draft.seen(keys.order(work.place, work.attempt), work.modified)
        if work.modified and not work.wanted.off:
            key = keys.report(work.place, work.attempt)
            known = self.view.reports.get(work.attempt, {}).get(work.place)
            # An earlier life's may still be on its way: the older of two must not have the last word.
            if key not in self.view.unreadable:
                draft.seen(key, max(work.told_at, known.modified if known else 0))
            draft.put(key, work.report)
        work.reported = work.report
        for engine, observed in work.news.items():
            draft.put(keys.observed(engine), observed)
        work.sent, work.news = work.news, {}
        self._on_the_way |= work.sent.keys()
        work.sending = True
        return draft.proposal("report", f"{work.place}/{work.attempt}", self.view)


def _same(one: Order, other: Order) -> bool:
    return (one.units, one.crossbar, one.off, _joined(one)) == (
        other.units,
        other.crossbar,
        other.off,
        _joined(other),
    )


def _joined(order: Order) -> tuple[Joined, ...]:
    """Return what tasks are told of their circuits."""
    return order.gang.circuits if order.gang is not None else ()


def _still_joined(up: Order, wanted: Order) -> Gang | None:
    """Return what tasks are told while circuits go: those that were there and stay."""
    if up.gang is None or wanted.gang is None:
        return up.gang
    stay = tuple(joined for joined in up.gang.circuits if joined in wanted.gang.circuits)
    return replace(up.gang, circuits=stay)


def _gone(up: Order, wanted: Order) -> bool:
    """Whether something is up that is not wanted: that goes first."""
    return not {*up.units, *_exclusive(up)} <= {*wanted.units, *_exclusive(wanted)}


def _exclusive(order: Order) -> list[str]:
    """Return the units of which a place can have only one holder's up at a time."""
    return [u for u in order.units if not is_divisible(u)] + [engine_unit(e) for e in order.off]


def _units(work: _Work) -> set[str]:
    """Return all that may be up for a work, or just be going off."""
    return {*work.up.units, *work.target.units, *_exclusive(work.up), *_exclusive(work.target)}


def _computes(unit: str) -> bool:
    return unit.startswith(("engine/", "share/"))


def _step(work: _Work, verb: Verb, order: Order, subject: str = "") -> Step:
    return Step(work.place, work.attempt, verb, subject, order)


def _name(step: Step) -> str:
    return f"{step.verb} {step.subject}"
