"""What all unit tests share: reproducible property tests, and no network."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

# The same examples in every run, so that a change of code and not of luck turns a test red. No deadline: a busy machine
# is not a failure.
settings.register_profile("unit", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unit")
