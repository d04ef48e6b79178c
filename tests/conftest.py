"""What every test may use: the profiles of hypothesis, and one way to say that a thing is missing."""

import os

import pytest
from hypothesis import HealthCheck, Phase, settings

# --------------------------------------------------------------------------------- hypothesis
# HYPOTHESIS_PROFILE chooses; none has a deadline, and a busy machine is no finding.

CALM = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

settings.register_profile("inner", CALM, max_examples=25)
settings.register_profile("ci", CALM, max_examples=200, derandomize=True, print_blob=True)
settings.register_profile("night", CALM, max_examples=20_000, print_blob=True)
settings.register_profile(  # the example as it was found, for a debugger
    "debug", CALM, max_examples=25, phases=[Phase.explicit, Phase.reuse, Phase.generate]
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "inner"))


# ----------------------------------------------------------------------------- what is missing


def require(what: str, present: object, why: str) -> None:
    """Skip the test by name where `what` is missing, or fail it where it must be there.

    FLOWOS_REQUIRE names what must be there: `all`, or a list such as `etcd,docker`. CI says `all`,
    so that no test is left out unseen.

    Args:
        what: One word, as it may stand in FLOWOS_REQUIRE.
        present: The thing, or whether it is there.
        why: What is missing, and how to get it.
    """
    if present:
        return
    demanded = os.environ.get("FLOWOS_REQUIRE", "").split(",")
    if "all" in demanded or what in demanded:
        pytest.fail(f"{what} is required here but missing: {why}", pytrace=False)
    pytest.skip(f"{what}: {why}")


# ------------------------------------------------------------------------------------ etcd
# Fixtures of a real server come in here, as plug-ins in files of their own:
pytest_plugins = ["tests.plugins.etcd", "tests.plugins.cluster"]
