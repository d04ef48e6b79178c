"""Is one scheduler process more advised where it helps, and not where it hurts?"""

import pytest

from flowos.runtime.advice import Lately, Verdict, advise


def like(count: int, **more) -> list[Lately]:
    usual = {"busy": 0.95, "queue": 500, "commits_per_s": 100.0, "conflict_fraction": 0.02}
    return [Lately(**{**usual, **more})] * count


@pytest.mark.parametrize(
    ("processes", "verdict"),
    [
        ([], Verdict.HELPS),
        (like(1, conflict_fraction=0.0), Verdict.HELPS),
        (like(4), Verdict.HELPS),
        (like(1, busy=0.1), Verdict.NOTHING),
        (like(4, queue=0), Verdict.NOTHING),
        (like(4, busy=0.3), Verdict.NOTHING),
        (like(8, conflict_fraction=0.6), Verdict.HURTS),
        (like(8, conflict_fraction=1.0, commits_per_s=0.0), Verdict.HURTS),
        (like(40, conflict_fraction=0.45), Verdict.NOTHING),
    ],
)
def test_one_more_is_advised_where_planning_is_what_slices_wait_for(processes, verdict):
    assert advise(processes).verdict is verdict


def test_the_gain_falls_as_conflicts_rise():
    gains = [advise(like(4, conflict_fraction=c)).gain for c in (0.0, 0.1, 0.2, 0.3, 0.4)]
    assert gains == sorted(gains, reverse=True)
    assert gains[0] == 1.25


def test_conflicts_are_weighed_by_how_much_each_process_commits():
    idle = Lately(0.9, 500, 1.0, 0.9)
    busy = Lately(0.9, 500, 990.0, 0.01)
    told = advise([busy, idle]).sentence
    assert "2% of them conflict" in told
    assert "991.0 commits/s" in told
