"""How many examples Hypothesis draws."""

import os

from hypothesis import HealthCheck, settings

THOROUGH = "IFGUIDE_TEST_THOROUGH"
"""The variable that is set while `make test-all` runs."""


def examples(few: int, many: int, *suppressed: HealthCheck) -> settings:
    """Few by default, many for `make test-all`; without a time limit for an example."""
    n = many if THOROUGH in os.environ else few
    return settings(max_examples=n, suppress_health_check=suppressed)
