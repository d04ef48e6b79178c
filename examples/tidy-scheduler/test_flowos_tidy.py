"""Does it keep the laws that the loop relies on?"""

from flowos_tidy import Tidy

from flowos.testing.schedulers import SchedulerLaws


class TestTidy(SchedulerLaws):
    policy = Tidy
