"""How long is a slice left aside that made its policy hang, and by whose clock?"""

from flowos.model.placement import Unplaceable
from flowos.model.slice import Reason, Waiting
from flowos.model.view import CellView, Entry
from flowos.runtime.setaside import SetAside, pause_after

NAME = "default/x"


def told(view: CellView, hangs: int, modified: int = 5) -> None:
    waiting = Waiting(Reason.SCHEDULER_DOWN, "policy x hung", (), "x-0", hangs)
    view.reasons[NAME] = Entry(waiting, modified, modified)


def test_the_pause_doubles_up_to_an_hour():
    assert [pause_after(n) for n in (1, 2, 3, 6, 7, 1000)] == [60, 120, 240, 1920, 3600, 3600]


def test_the_pause_begins_when_this_process_first_sees_it_and_ends():
    view, answered = CellView(), set[str]()
    aside = SetAside(view, answered)
    assert aside.until(NAME, 1000.0) is None
    told(view, 1)
    why = Unplaceable(Reason.SCHEDULER_DOWN, "policy x hung")
    assert aside.until(NAME, 1000.0) == (1060.0, why)
    assert aside.until(NAME, 1059.0) == (1060.0, why)
    assert aside.until(NAME, 1060.0) is None
    told(view, 2, modified=9)
    assert aside.until(NAME, 1100.0) == (1220.0, why)


def test_who_waits_for_another_reason_or_was_answered_late_is_not_left_aside():
    view, answered = CellView(), set[str]()
    aside = SetAside(view, answered)
    told(view, 0)
    assert aside.until(NAME, 0.0) is None
    told(view, 1)
    answered.add(NAME)
    assert aside.until(NAME, 0.0) is None
