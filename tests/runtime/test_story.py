"""What `slice events` tells: each change with the reason and the time that belong to it."""

from flowos.model.slice import Phase
from flowos.runtime.story import told
from tests.runtime.cells import wanted
from tests.runtime.test_resizing import resized, settled, stage


def test_what_is_cancelled_while_it_waits_has_no_stale_reason():
    theatre = stage(gpus=4, fpgas=0)
    theatre.submit(wanted("a", gpus=100))
    assert theatre.play(5, lambda: theatre.waits("default/a"))
    theatre.wish("default/a", cancelled=True)
    assert theatre.play(20, lambda: theatre.phase("default/a") is Phase.CANCELLED)
    events = [(e["what"], e["reason"]) for e in told(theatre.store, "default/a")]
    assert ("its user wants it gone", None) in events
    assert "Infeasible" in {reason for _, reason in events}


def test_a_time_is_told_once_and_only_of_what_happened_then():
    theatre = stage(gpus=4, fpgas=0)
    spec = wanted("s", gpus=2)
    theatre.submit(spec)
    assert theatre.play(20, lambda: theatre.phase(spec.id) is Phase.RUNNING)
    started = theatre.placed(spec.id).started_at
    theatre.play(10)
    theatre.wish(spec.id, spec=resized(spec, 4))
    assert theatre.play(30, lambda: settled(theatre, spec.id, 4) or len(theatre.held(spec.id)) == 4)
    grown_at = theatre.placed(spec.id).committed_at
    theatre.play(10)
    theatre.wish(spec.id, cancelled=True)
    assert theatre.play(20, lambda: theatre.phase(spec.id) is Phase.CANCELLED)
    events = list(told(theatre.store, spec.id))
    assert [e["what"] for e in events if e["at"] == started] == ["runs on 2 engines"]
    assert [e["what"] for e in events if e["at"] == grown_at] == ["runs on 4 engines"]
    times = [e["at"] for e in events if e["at"] is not None]
    assert times == sorted(times)
    (gone,) = [e for e in events if e["what"] == "its user wants it gone"]
    assert gone["at"] is None
