"""Are the worst races that were found still no worse, and do the mitigations still do what is said?"""

import re
from pathlib import Path

import pytest

from flowos.testing.hunt import OBJECTIVES
from flowos.testing.interleaving import ALL, Ground, Mitigations, Played, play
from flowos.testing.worst import WORST, Known
from flowos_schedulers.batch import Batch
from flowos_store.memory import MemoryStore

PAGE = Path(__file__).parents[2] / "docs/conflicts-found.md"


def played(known: Known, ways: Mitigations = ALL) -> Played:
    ground = Ground(known.contest, MemoryStore)
    return play(ground, known.choices, policy=Batch, mitigations=ways)


def figure(known: Known, run: Played) -> float:
    return OBJECTIVES[known.figure].of(run)


@pytest.mark.parametrize("known", WORST, ids=lambda known: known.name)
def test_what_was_found_is_no_worse_and_keeps_all_laws(known):
    run = played(known)
    assert figure(known, run) <= known.most
    assert run.violations == []
    assert run.left == []


@pytest.mark.parametrize("known", [k for k in WORST if k.without], ids=lambda known: known.name)
def test_what_is_done_about_it_is_what_makes_the_difference(known):
    run = played(known, ALL.without(*known.without))
    assert figure(known, run) >= known.least
    assert run.violations == []
    costs = known.least < known.most and "cost" in known.done
    assert costs or figure(known, run) > figure(known, played(known))


@pytest.mark.parametrize("known", [k for k in WORST if not k.without], ids=lambda k: k.name)
def test_what_nothing_is_done_about_is_as_bad_as_it_is_said_to_be(known):
    assert figure(known, played(known)) >= known.least


def test_each_loses_no_more_than_once_where_all_want_the_same():
    (known,) = [k for k in WORST if k.name == "all want most of the cell"]
    assert [part.conflicts for part in played(known).parts] == [0, 1, 1, 1]


def test_the_page_has_all_of_them():
    told = set(re.findall(r"^### (.+)$", PAGE.read_text(), flags=re.MULTILINE))
    assert told == {known.name.capitalize() for known in WORST}
