"""The controller's loop: it moves slices along their life cycle and gives back what is clean.

Level-triggered: each round looks at what changed and does what the records allow now. Any number
of controllers may run; one acts, elected by a leased key, and any may die between two steps.
"""

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from math import inf
from typing import Final

from flowos.model import keys
from flowos.model.placement import Decision, Ending, Placement
from flowos.model.slice import End, Phase, Reason
from flowos.model.transaction import Committed, Conflicted, Put, Seen, Transaction
from flowos.model.units import is_laid, place_in, subject_of
from flowos.model.view import Applied, CellView, Entry
from flowos.planning.reshape import kept
from flowos.protocol import accounts, grants, release, system
from flowos.protocol.proposal import Fence, Proposal, writes
from flowos.protocol.resize import shrink
from flowos.protocol.takeover import RESERVED
from flowos.runtime.ended import ended_lines, ended_slices
from flowos.runtime.gates import Gates
from flowos.runtime.machine import Answer, Commit, Instruction, Refused
from flowos.runtime.power import IdleEngines
from flowos.runtime.reserving import Reserving
from flowos.runtime.retention import Keeping, Retention

LOG = logging.getLogger("flowos")

GROUP_MAX: Final = 16
BUILD_TRIES: Final = 3  # a slice whose build failed this often is given up
LINES_A_SWEEP: Final = 2_000  # of the history that are forgotten: more than a second brings
RETRY_SECONDS: Final = 0.2  # after a step was refused or lost a race


@dataclass(frozen=True, slots=True)
class Rules(Keeping):
    """The controller's settings; durations on its own clock."""

    idle_off_seconds: float = 900.0  # 0 = engines are never powered off
    agent_grace_seconds: float = 60.0  # how long a place may be silent before it counts as dead
    mass_silence: float = 0.1  # more than this share of agents gone is the store's fault
    ended_seconds: float = 86_400.0
    ended_max: int = 100_000
    history_seconds: float = 604_800.0  # a week of who held what ...
    history_max: int = 100_000  # ... or so many lines of it
    sweep_seconds: float = 1.0  # how often things are looked at that no event announces


class Lifecycle:
    """The leading controller's machine."""

    def __init__(
        self,
        view: CellView,
        *,
        fence: Callable[[], Fence],
        wall: Callable[[], float],
        new_attempt: Callable[[], str],
        fits: Callable[[Sequence[Proposal]], bool],
        leads: Callable[[], bool] = lambda: True,
        candidacy: Callable[[], Proposal] | None = None,
        rules: Rules | None = None,
    ) -> None:
        """Start with nothing to do.

        Args:
            view: Fed by the shell; orders and reports included.
            fence: Returns the session's fence now.
            wall: Wall-clock seconds, for records.
            new_attempt: Returns an id that no commit has had.
            fits: Whether the store takes these steps in one request.
            leads: Whether this process is the one to act.
            candidacy: Returns the step by which this process becomes the one to act.
            rules: Settings.
        """
        self.view = view
        self.rules = rules or Rules()
        self._fence = fence
        self._wall = wall
        self._new_attempt = new_attempt
        self._fits = fits
        self._leads = leads
        self._candidacy = candidacy
        self._due: dict[str, None] = {}
        self._later: dict[str, float] = {}  # not to be looked at before
        self._alarms: dict[str, float] = {}  # to be looked at then, whatever happens before
        self._alone: set[str] = set()  # what was refused in a group
        self._in_flight: dict[str, int] = {}  # identifier -> revision to wait for, 0 = no answer
        self._waiting: set[str] = set()
        # Slices that hold what they ask for, as of which revisions of theirs.
        self._fitting: dict[str, tuple[int, int]] = {}
        self._quarantines: set[str] = set()
        self._silent_since: dict[str, float] = {}
        self._seen_agents: set[str] = set()
        self._fenced_grants: dict[tuple[str, str], int] = {}
        self._history = Retention(view, self.rules)
        self._sweep_at = 0.0
        self._acting = False
        self._wake_at = inf
        self._idle = IdleEngines(view)
        self._reserving = Reserving(view, fence=fence, wall=wall, new_attempt=new_attempt)
        self._ended = ended_slices(view)
        self._lines = ended_lines(view)
        self._gates = Gates(view)
        self._since: dict[str, tuple[str, float]] = {}  # placement -> its attempt, since when

    # -- what happened

    def changed(self, change: Applied) -> None:
        """Note which slices and placements to look at again."""
        match change.family:
            case "slice" | "placement":
                self._due[change.name] = None
                self._due |= dict.fromkeys(self._gates.changed(change))
                self._reserving.changed(change)
                if change.family == "slice":
                    self._ended.changed(change.name)
                else:
                    self._note_since(change.name)
                    self._due |= dict.fromkeys(self._waiting)
                    if change.name.startswith("~quarantine/"):
                        self._quarantines.add(change.name)
            case "history":
                self._lines.changed(change.name)
            case "rule":
                self._reserving.changed(change)
            case "order" | "report":
                attempt = change.name.rpartition("/")[2]
                self._due |= dict.fromkeys(self.view.by_attempt.get(attempt, ()))
            case "session":
                role, _, place = change.name.partition("/")
                if role == "agent" and change.name in self.view.sessions:
                    self._seen_agents.add(place)
                    self._silent_since.pop(place, None)
                    mine = f"~quarantine/{place}/"
                    self._due |= {n: None for n in self._quarantines if n.startswith(mine)}
            case _:
                pass

    def relisted(self) -> None:
        """Look at everything again."""
        self._due = dict.fromkeys([*self.view.slices, *self.view.placements])
        self._quarantines = {n for n in self.view.placements if n.startswith("~quarantine/")}
        self._waiting.clear()
        self._later.clear()
        self._alarms.clear()
        self._in_flight.clear()
        for name in self.view.sessions_of("agent"):
            self._seen_agents.add(name)
        for attempt, reports in self.view.reports.items():
            if attempt in self.view.by_attempt:
                self._seen_agents |= reports.keys()
        self._idle.restart()
        self._reserving.restart()
        self._ended.restart()
        self._lines.restart()
        self._gates.restart()
        self._since.clear()
        for name in self.view.placements:
            self._note_since(name)

    def _note_since(self, name: str) -> None:
        """Note when a placement was first seen, until its record says since when it is there."""
        entry = self.view.placements.get(name)
        if entry is None or entry.value.committed_at or name.startswith("~"):
            self._since.pop(name, None)
        elif self._since.get(name, ("",))[0] != entry.value.attempt:
            self._since[name] = (entry.value.attempt, self._wall())

    def answered(self, commit: Commit, answers: Sequence[Answer], now: float) -> None:
        """Wait until the view shows what was done, or try again soon."""
        for proposal, answer in zip(commit.proposals, answers, strict=True):
            name = proposal.identifier
            self._history.answered(answer)
            if isinstance(answer, Committed):
                self._in_flight[name] = answer.revision
                if proposal.step == "fence grant":
                    _, purse, holder = name.split("/")
                    self._fenced_grants[purse, holder] = answer.revision
            else:
                if isinstance(answer, Conflicted):
                    self._in_flight[name] = answer.revision
                else:
                    self._in_flight.pop(name, None)
                    self._alone.add(name)
                pause = RETRY_SECONDS * (25 if isinstance(answer, Refused) else 1)
                self._later[name] = now + pause

    # -- what to do

    def needs(self) -> int:
        """Return up to where the view must be complete for this to go on."""
        return max(self._in_flight.values(), default=0)

    def wake_at(self) -> float:
        """Return when `step` has something to do without any event."""
        return self._wake_at

    def step(self, now: float) -> list[Instruction]:
        """Return the steps that the records allow now, in groups."""
        self._wake_at = inf
        if not self._leads():
            self._acting = False
            self._due.clear()  # whoever begins to act looks at everything
            return self._stand(now)
        if not self._acting:
            self._acting = True
            self.relisted()
        for name in [n for n, r in self._in_flight.items() if 0 < r <= self.view.revision]:
            del self._in_flight[name]
            self._due[name] = None
        for name in [n for n, at in self._later.items() if at <= now]:
            del self._later[name]
            self._due[name] = None
        for name in [n for n, at in self._alarms.items() if at <= now]:
            del self._alarms[name]
            self._due[name] = None
        self._due |= dict.fromkeys(self._reserving.due())
        proposals: list[Proposal] = []
        if now >= self._sweep_at:
            self._sweep_at = now + self.rules.sweep_seconds
            proposals += self._sweep(now)
        for name in list(self._due):
            if name in self._in_flight:
                continue  # looked at again when the view shows how it ended
            if name in self._later:
                del self._due[name]
                continue
            del self._due[name]
            proposal = self._tried(name, now, partial(self._look, name, now))
            if proposal is not None:
                proposals.append(proposal)
        opens_at = now + self._reserving.wake_in()
        self._wake_at = min(
            [self._sweep_at, opens_at, *self._later.values(), *self._alarms.values()]
        )
        instructions: list[Instruction] = [Commit(group) for group in self._groups(proposals)]
        return [*instructions, *self._history.compaction(now)]

    def _stand(self, now: float) -> list[Instruction]:
        """Try to become the one that acts, where nobody is."""
        if self._candidacy is None or "controller/leader" in self.view.sessions:
            return []
        asked = self._in_flight.get(keys.LEADER, -1)
        if asked == 0 or asked > self.view.revision or self._later.get(keys.LEADER, 0) > now:
            self._wake_at = self._later.get(keys.LEADER, inf)
            return []
        self._in_flight[keys.LEADER] = 0
        return [Commit((self._candidacy(),))]

    def _groups(self, proposals: Iterable[Proposal]) -> list[tuple[Proposal, ...]]:
        groups: list[tuple[Proposal, ...]] = []
        group: list[Proposal] = []
        written: set[str] = set()
        for proposal in proposals:
            if proposal.identifier in self._in_flight:
                continue
            self._in_flight[proposal.identifier] = 0
            mine = writes([proposal])
            if proposal.identifier in self._alone:
                self._alone.discard(proposal.identifier)
                groups.append((proposal,))
                continue
            full = len(group) == GROUP_MAX or mine & written
            if group and (full or not self._fits([*group, proposal])):
                groups.append(tuple(group))
                group, written = [], set()
            group.append(proposal)
            written |= mine
        return [*groups, tuple(group)] if group else groups

    def _tried(self, name: str, now: float, look: Callable[[], Proposal | None]) -> Proposal | None:
        """Return what a look at one record finds to do; a look that fails stops nothing else."""
        try:
            return look()
        except Exception:
            LOG.exception("%s is left alone for a while", name)
            self._later[name] = now + 25 * RETRY_SECONDS
            return None

    def _look(self, name: str, now: float) -> Proposal | None:
        entry = self.view.placements.get(name)
        if name.startswith(RESERVED):
            self._waiting.discard(name)
            if entry is not None and entry.value.waits:
                self._waiting.add(name)
            return self._reserving.look(name)
        if name.startswith("~"):
            if entry is None:
                self._waiting.discard(name)
                self._quarantines.discard(name)
                return None
            return self._look_at_system(name, entry)
        if entry is None:
            self._alarms.pop(name, None)
            self._fitting.pop(name, None)
            self._waiting.discard(name)
            return self._look_at_unplaced(name, now)
        if entry.value.waits:
            self._waiting.add(name)
        else:
            self._waiting.discard(name)
        placement = entry.value
        ending = self._ending(name, entry, now)
        if placement.ending is None and ending is not None:
            if placement.started_at is None and ending.exit_code is not None:
                # It ran between two looks: that it was up once is a part of its outcome.
                if entry.modified > self.view.revision:
                    self._in_flight[name] = entry.modified
                    return None
                if self._all_up(entry):
                    return self._mark_started(name)
            return release.release(
                self.view, name, ending, fence=self._fence(), since=self._held_since(name)
            )
        if placement.waits and placement.ending is None:
            return release.arm(self.view, name, fence=self._fence())
        if placement.releasing or placement.ending is not None:
            step = release.free(
                self.view,
                name,
                fence=self._fence(),
                now=self._wall(),
                since=self._held_since(name),
            )
            if step is None and entry.modified > self.view.revision:
                self._in_flight[name] = entry.modified  # look again once the view is complete
            return step
        if placement.started_at is None and self._all_up(entry):
            return self._mark_started(name)
        stays = self._kept(name, entry)
        if entry.modified > self.view.revision and (placement.started_at is None or stays):
            self._in_flight[name] = entry.modified  # look again once the view is complete
        elif stays and self._all_up(entry):
            return shrink(self.view, name, stays, fence=self._fence(), now=self._wall())
        return None

    def _kept(self, name: str, entry: Entry[Placement]) -> Decision | None:
        """Return what stays where a slice that runs holds more than it asks for, and lacks nothing.

        That changes only with its record or its placement, and hardly any slice is resized.
        """
        spec = self.view.slices.get(name)
        if spec is None or entry.value.waits or entry.value.started_at is None:
            return None
        looked_at = (spec.modified, entry.modified)
        if self._fitting.get(name) == looked_at:
            return None
        stays = kept(spec.value.spec, entry.value)
        if stays is None:
            self._fitting[name] = looked_at
        return stays

    def _mark_started(self, name: str) -> Proposal:
        return release.mark_started(
            self.view, name, self._wall(), fence=self._fence(), since=self._held_since(name)
        )

    def _held_since(self, name: str) -> float:
        return self._since[name][1] if name in self._since else 0.0

    def _ending(self, name: str, entry: Entry[Placement], now: float) -> Ending | None:
        """Return why a placement must be given back, or None."""
        placement = entry.value
        spec = self.view.slices.get(name)
        if spec is None or spec.created != release.uid_of(entry.created, placement):
            # The slice's own record may come a moment after its placement, by another watch.
            if entry.modified > self.view.revision:
                self._in_flight.setdefault(name, entry.modified)
                return None
            return Ending(Phase.FAILED, message="its slice is gone")
        if spec.value.cancelled:
            return release.CANCELLED
        if not placement.held:
            return Ending(Phase.PENDING, message="all that it held was taken or lost")
        reports = self.view.reports.get(placement.attempt, {})
        failed = next((r.value.failed for r in reports.values() if r.value.failed), "")
        if failed:
            if placement.number >= BUILD_TRIES:
                text = f"could not be built, {placement.number} times: {failed}"
                return Ending(Phase.FAILED, exit_code=1, message=text)
            return Ending(Phase.PENDING, message=f"could not be built: {failed}")
        if placement.run.ends and not placement.waits:
            codes = self._exit_codes(entry)
            worst = next((code for code in codes if code), 0)
            if placement.run.tolerant and (None in codes or 0 in codes):
                worst = 0  # one that ended well is enough, and some may yet
            if worst:  # the others of a gang may wait for this one for ever
                text = f"a task ended with {worst}"
                return Ending(Phase.FAILED, exit_code=worst, message=text)
            if codes and None not in codes:
                return Ending(Phase.DONE, exit_code=0)
        if self._reserving.closes_places:
            evicted = self._reserving.ending(name, placement)
            if evicted is not None:
                return evicted
        limit = spec.value.spec.time_limit_seconds
        if limit and placement.started_at is not None:
            left = placement.started_at + limit - self._wall()
            if left <= 0:
                return Ending(
                    Phase.FAILED,
                    reason=Reason.TIME_LIMIT,
                    message=f"ran into its time limit of {limit:g} s",
                )
            self._alarms[name] = now + left
        return None

    def _exit_codes(self, entry: Entry[Placement]) -> list[int | None]:
        """Return every node's exit code, None where its tasks have not ended.

        A node that a slice has given up has no tasks of it, though it has an order: for nothing.
        """
        reports = self.view.reports.get(entry.value.attempt, {})
        held = {place_in(unit) for unit in entry.value.held if not is_laid(unit)}
        nodes = [place for place in entry.value.ordered if place in held]
        return [reports[node].value.exit_code if node in reports else None for node in nodes]

    def _all_up(self, entry: Entry[Placement]) -> bool:
        placement = entry.value
        return entry.modified <= self.view.revision and all(
            self.view.applied(place, placement.attempt) for place in placement.ordered
        )

    def _look_at_unplaced(self, name: str, now: float) -> Proposal | None:
        spec = self.view.slices.get(name)
        if spec is None:
            return None
        if spec.value.end is not None:
            ended = spec.value.end.ended_at + self.rules.ended_seconds
            if self._wall() < ended:
                return None  # the sweep forgets it in time
            if self._gates.is_waited_for(name):
                return None
            return release.forget(self.view, name, fence=self._fence())
        message, reason = "cancelled by its user", None
        if not spec.value.cancelled:
            message, reason = self._gates.never(spec.value), Reason.DEPENDS_ON
        if not message:
            return None
        if max(spec.modified, self.view.placed_at) > self.view.revision:
            self._in_flight[name] = max(spec.modified, self.view.placed_at)
            return None
        end = End(Phase.CANCELLED, reason=reason, message=message, ended_at=self._wall())
        return release.end_unplaced(self.view, name, end, fence=self._fence())

    def _look_at_system(self, name: str, entry: Entry[Placement]) -> Proposal | None:
        placement = entry.value
        if name.startswith("~quarantine/"):
            if placement.releasing:
                step = release.free(self.view, name, fence=self._fence(), now=self._wall())
                if step is None:
                    self._waiting.add(name)
                return step
            place = name.split("/")[1]
            if f"agent/{place}" in self.view.sessions:
                return system.declare_clean(self.view, name, fence=self._fence())
            return None
        if name.startswith("~drain/") and placement.wanted:
            (unit,) = placement.wanted
            deadline = placement.deadline_at
            take = deadline is not None and self._wall() >= deadline
            self._waiting.add(name)
            return system.drain(
                self.view, unit, attempt=placement.attempt, fence=self._fence(), take=take
            )
        self._waiting.discard(name)
        return None

    # -- what time alone brings

    def _sweep(self, now: float) -> list[Proposal]:
        self._due |= dict.fromkeys(n for n in self._waiting if n in self.view.placements)
        found = [*self._dead_places(now), *self._dead_grants(), *self._retention()]
        found += self._history.abandoned(now, self._fence())
        if self.rules.idle_off_seconds:
            for engine in self._idle.due(now, self.rules.idle_off_seconds):
                step = system.power_off(
                    self.view, engine, attempt=self._new_attempt(), fence=self._fence()
                )
                if step is not None:
                    found.append(step)
        return found

    def _dead_places(self, now: float) -> list[Proposal]:
        """Quarantine what silent agents held; nothing while so many are silent at once."""
        alive = {k.partition("/")[2] for k in self.view.sessions if k.startswith("agent/")}
        cell = self.view.cell
        gone = {p for p in self._seen_agents if p not in cell.nodes and p not in cell.switches}
        if gone:  # what has left the inventory is nobody's loss, unless something is still up there
            placements = self.view.placements.values()
            self._seen_agents -= gone.difference(*(e.value.ordered for e in placements))
        silent = self._seen_agents - alive
        for place in silent:
            self._silent_since.setdefault(place, now)
        for place in [p for p in self._silent_since if p not in silent]:
            del self._silent_since[place]
        if len(silent) > max(1, self.rules.mass_silence * len(self._seen_agents)):
            return []
        found: list[Proposal] = []
        for place, since in self._silent_since.items():
            if now - since < self.rules.agent_grace_seconds:
                continue
            for name, entry in self.view.placements.items():
                if name.startswith("~") or name in self._in_flight:
                    continue
                units = (*entry.value.held, *entry.value.releasing)
                touches = place in entry.value.ordered or any(
                    self.view.cell.place_of(subject_of(unit)) == place for unit in units
                )
                if not touches or name in self._later:
                    continue
                quarantine = partial(
                    system.quarantine,
                    self.view,
                    place,
                    name,
                    fence=self._fence(),
                    ending=Ending(Phase.PENDING, message=f"{place} does not answer"),
                )
                step = self._tried(name, now, quarantine)
                if step is not None:
                    found.append(step)
            dead = place not in gone and system.take_out(
                self.view, place, attempt=self._new_attempt(), fence=self._fence()
            )
            if dead:
                found.append(dead)
        return found

    def _dead_grants(self) -> list[Proposal]:
        found: list[Proposal] = []
        for purse, holders in self.view.grants.items():
            for holder in holders:
                fenced_at = self._fenced_grants.get((purse, holder))
                step = (
                    grants.fence_dead(self.view, purse, holder, fence=self._fence())
                    if fenced_at is None
                    else grants.lower_dead(self.view, purse, holder, fenced_at, fence=self._fence())
                )
                if step is not None:
                    found.append(step)
        return found

    def _retention(self) -> list[Proposal]:
        old = self._wall() - self.rules.ended_seconds
        stays = self._gates.is_waited_for
        names = self._ended.due(old, self.rules.ended_max, 10 * GROUP_MAX, stays)
        steps = [release.forget(self.view, name, fence=self._fence()) for name in names]
        old = self._wall() - self.rules.history_seconds
        lines = self._lines.due(old, self.rules.history_max, LINES_A_SWEEP)
        for start in range(0, len(lines), accounts.FORGOTTEN_AT_ONCE):
            few = lines[start : start + accounts.FORGOTTEN_AT_ONCE]
            steps.append(accounts.forget(few, fence=self._fence()))
        return [step for step in steps if step is not None]


def election(fence: Fence, record: bytes, lease: int) -> Proposal:
    """Return the step that makes this process the one that acts, if none does."""
    transaction = Transaction(
        (fence.compare, Seen(keys.LEADER, 0)), (Put(keys.LEADER, record, lease),)
    )
    return Proposal("elect", keys.LEADER, transaction)
