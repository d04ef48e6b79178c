"""Mistakes that somebody might make in the loops' shell, one at a time, for the simulation to find.

Run as `python -m tests.simulation.planted MISTAKE SEED...`; prints what the first seed that finds
it says, and ends with 1; with 0 where none does.
"""

import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from flowos.model.errors import OutcomeUnknown
from flowos.model.transaction import Changes, Committed, Conflicted, Lost, Seen
from flowos.protocol import release
from flowos.protocol.proposal import Draft
from flowos.runtime import mirror
from flowos.runtime.agent import Agent
from flowos.runtime.machine import after_fence
from flowos.runtime.mirror import Mirror, Send
from flowos.runtime.requests import Look
from flowos.runtime.tenure import Tenure
from flowos.simulation.trial import BUDGET_WATTS, Failure, Trial
from flowos.simulation.wire import Mishaps, WireWatch
from flowos_schedulers.batch import Batch
from flowos_store.memory import MemoryStore

FOUL = Mishaps(
    dropped=0.02,
    unanswered=0.05,
    late=0.12,
    torn=0.03,
    slow=0.08,
    deaf=0.2,
    killed=0.003,
)
# Answers are lost early, and watches are late: what was done is seen long after its fence.
SLOW = Mishaps(unanswered=0.3, slow=0.4, torn=0.03)


def plant(where: Any, name: str, mistake: object) -> None:
    setattr(where, name, mistake)


def no_fence_before_the_decision() -> None:
    def at_once(self, commit, error, now):
        if not isinstance(error, OutcomeUnknown):
            return take_failure(self, commit, error, now)
        self._in_flight -= 1
        answers = after_fence(self.machine.view, commit.proposals)
        return self.machine.answered(commit, answers, now)

    take_failure = Mirror._take_failure
    plant(Mirror, "_take_failure", at_once)


def decision_before_the_view_reached_the_fence() -> None:
    def early(self, now):
        self._fenced = [(0, commits) for _, commits in self._fenced]
        decide(self, now)

    decide = Mirror._decide
    plant(Mirror, "_decide", early)


def an_unknown_answer_taken_for_no() -> None:
    def no(self, commit, error, now):
        if not isinstance(error, OutcomeUnknown):
            return take_failure(self, commit, error, now)
        self._in_flight -= 1
        answers = [Conflicted(self.machine.view.revision) for _ in commit.proposals]
        return self.machine.answered(commit, answers, now)

    take_failure = Mirror._take_failure
    plant(Mirror, "_take_failure", no)


def an_unknown_answer_taken_for_yes() -> None:
    def yes(self, commit, error, now):
        if not isinstance(error, OutcomeUnknown):
            return take_failure(self, commit, error, now)
        self._in_flight -= 1
        answers = [Committed(self.machine.view.revision + 1) for _ in commit.proposals]
        return self.machine.answered(commit, answers, now)

    take_failure = Mirror._take_failure
    plant(Mirror, "_take_failure", yes)


def a_watch_resumed_from_the_created_revision() -> None:
    plant(WireWatch, "resumes_after", lambda self, _prefix: self._site.store.revision)


def a_lost_watch_opened_again_without_listing() -> None:
    def go_on(self, message, now):
        if not isinstance(message, Lost):
            return hear(self, message, now)
        after = message.compacted or self.machine.view.revision
        self._opening.append(mirror.OpenWatch(self._generation, after))
        return None

    hear = Mirror._hear
    plant(Mirror, "_hear", go_on)


def a_view_called_complete_by_its_events() -> None:
    def complete(self, message, now):
        hear(self, message, now)
        if isinstance(message, Changes):
            self.machine.view.progressed(message.changes[-1].modified)

    hear = Mirror._hear
    plant(Mirror, "_hear", complete)


def a_request_without_an_answer_sent_again() -> None:
    def again(self, commit, error, now):
        if not isinstance(error, OutcomeUnknown):
            return take_failure(self, commit, error, now)
        self._opening.append(Send(commit))
        return None

    take_failure = Mirror._take_failure
    plant(Mirror, "_take_failure", again)


def no_session_compared() -> None:
    def init(self, *, fence):
        begin(self, fence=None)

    begin = Draft.__init__
    plant(Draft, "__init__", init)


def a_fence_that_is_not_put() -> None:
    def refence(self):
        yield Look((self.key,))
        return self.fence.revision

    plant(Tenure, "refence", refence)


def units_freed_before_all_have_reported() -> None:
    plant(release, "cleaners_of", lambda _cell, _unit, ordered: ordered[:1])


def an_emptied_order_taken_for_a_clean_place() -> None:
    plant(Agent, "_is_held_by_a_sweep", lambda _self, _work, _now: False)


MISTAKES: dict[str, Callable[[], None]] = {
    mistake.__name__: mistake
    for mistake in (
        no_fence_before_the_decision,
        decision_before_the_view_reached_the_fence,
        an_unknown_answer_taken_for_no,
        an_unknown_answer_taken_for_yes,
        a_watch_resumed_from_the_created_revision,
        a_lost_watch_opened_again_without_listing,
        a_view_called_complete_by_its_events,
        a_request_without_an_answer_sent_again,
        no_session_compared,
        a_fence_that_is_not_put,
        units_freed_before_all_have_reported,
        an_emptied_order_taken_for_a_clean_place,
    )
}


SEEN_LATE = {decision_before_the_view_reached_the_fence.__name__, "none late"}


def older_reports_overwrite() -> None:
    """Take the other guard of reports away: with it, a late one does no harm that shows."""

    def unguarded(self, work):
        proposal = propose(self, work)
        compares = tuple(
            c
            for c in proposal.transaction.compares
            if not (isinstance(c, Seen) and c.key.startswith("report/"))
        )
        return replace(proposal, transaction=replace(proposal.transaction, compares=compares))

    propose = Agent._proposal
    plant(Agent, "_proposal", unguarded)


def main(mistake: str, *seeds: str) -> int:
    if mistake in MISTAKES:
        older_reports_overwrite()
        MISTAKES[mistake]()
    for seed in map(int, seeds):
        trial = Trial(
            seed,
            new_store=MemoryStore,
            policy=Batch(),
            slices=40,
            mishaps=SLOW if mistake in SEEN_LATE else FOUL,
            budget_watts=BUDGET_WATTS,
        )
        try:
            trial.run()
        except (Failure, AssertionError) as failure:
            print(f"{type(failure).__name__}: {failure}")
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
