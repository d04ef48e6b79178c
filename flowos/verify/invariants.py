"""Does a state keep the laws, and does each step from there? All of it, or only what was touched."""

from collections.abc import Iterable, Sequence
from typing import Any, Final

from flowos.model.transaction import Change
from flowos.verify import steps
from flowos.verify.facts import Facts, Touched
from flowos.verify.laws import LAWS, Fault, Violation
from flowos.verify.state import State

# Every law by name, with what it says; the first are of states, the others of steps.
NAMES: Final = (
    *LAWS,
    "freed",
    "raised",
    "committed",
    "covered",
    "reserved",
    "in service",
    "phases",
)


# While this key is there a cell is being loaded or restored, over many revisions, and nobody may
# act on it. What lies between is no cell, and is not judged; the whole that comes of it is.
LOADING: Final = "cell/loading"


class Checker:
    """A state, followed revision by revision, and which laws it breaks.

    Attributes:
        state: As it is now.
        facts: What its records say.
        phases: Where each slice is in its life.
        loading: Whether a cell is being loaded or restored: nothing is known of it, or judged.
    """

    def __init__(self, state: State) -> None:
        """Check all of a state, which is this checker's from now on; see `standing`."""
        self.state = state
        self.loading = LOADING in state.records
        self.facts = Facts()
        self._faults: dict[tuple[str, Any], list[Violation]] = {}
        self.phases = steps.Phases()
        self._limits = steps.Limits()
        if self.loading:
            return
        touched = Touched()
        for change in state.changes():
            self.facts.apply(change, touched)
        self._look(touched)
        self.phases.begin(self.facts)

    def standing(self) -> list[Violation]:
        """Return how the state breaks the laws now, each with the revision since when."""
        return [v for _, found in sorted(self._faults.items(), key=repr) for v in found]

    def step(self, changes: Sequence[Change]) -> list[Violation]:
        """Move on by one revision and return what it broke that was not broken before.

        Args:
            changes: All that this revision wrote, in any order.
        """
        if self.loading or any(change.key == LOADING for change in changes):
            return self._loaded(changes)
        facts, touched = self.facts, Touched()
        freed = list(steps.freed(facts, changes))
        granted = steps.granted(facts, changes)
        limits = {purse: self._limits.of(facts, purse) for purse in granted}
        placed = steps.placed(facts, changes)
        kept = steps.kept(facts, changes)
        self.state.apply(changes)
        for change in changes:
            facts.apply(change, touched)
        found = self._look(touched)
        found += self._noted("freed", freed)
        found += self._noted("raised", steps.raised(facts, granted, limits))
        found += self._noted("committed", steps.committed(facts, placed))
        found += self._noted("covered", steps.covered(facts, placed))
        found += self._noted("reserved", steps.reserved(facts, kept, changes))
        found += self._noted("in service", steps.in_service(facts, placed))
        for identifier in sorted(touched.slices):
            found += self._noted("phases", self.phases.move(facts, identifier))
        return found

    def _loaded(self, changes: Sequence[Change]) -> list[Violation]:
        """Move on without a judgement until the cell is whole again, and then look at all of it."""
        lives = self.phases.lives
        self.state.apply(changes)
        fresh = Checker(self.state)
        self.loading, self.facts, self._faults = fresh.loading, fresh.facts, fresh._faults
        self.phases, self._limits = fresh.phases, fresh._limits
        self.phases.lives += lives
        return self.standing()

    def _look(self, touched: Touched) -> list[Violation]:
        """Look again at what was touched, and return what is broken anew."""
        new: list[Violation] = []
        for name, law in LAWS.items():
            for subject in getattr(touched, law.subjects):
                faults = list(law.look(self.facts, subject))
                known = self._faults.pop((name, subject), None)
                if not faults:
                    continue
                since = {(v.where, v.sentence): v.revision for v in known or ()}
                broken = []
                for where, sentence, details in faults:
                    revision = since.get((where, sentence), self.state.revision)
                    broken.append(Violation(name, where, sentence, revision, details))
                    if (where, sentence) not in since:
                        new.append(broken[-1])
                self._faults[name, subject] = broken
        return sorted(new, key=lambda v: (v.law, v.where, v.sentence))

    def _noted(self, law: str, faults: Iterable[Fault]) -> list[Violation]:
        revision = self.state.revision
        return [Violation(law, f.where, f.sentence, revision, f.details) for f in faults]


def check(state: State) -> list[Violation]:
    """Return how a state breaks the laws; those of steps need a `Checker`."""
    return Checker(state).standing()
