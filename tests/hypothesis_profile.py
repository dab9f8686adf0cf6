"""One Hypothesis profile for all tests: the same examples on every machine and every day.

`HYPOTHESIS_PROFILE=search` draws new ones, ten times as many, for a hunt by hand.
"""

import os

from hypothesis import HealthCheck, settings

# Examples are whole logs, and machines are busy: neither slowness nor size of an example is a defect.
SLOW = [HealthCheck.too_slow, HealthCheck.data_too_large]

settings.register_profile(
    "fixed", derandomize=True, database=None, deadline=None, max_examples=300, suppress_health_check=SLOW
)
settings.register_profile(
    "search", derandomize=False, database=None, deadline=None, max_examples=3000, suppress_health_check=SLOW
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fixed"))
