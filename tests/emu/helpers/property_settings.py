"""How the property tests of this directory run: the same examples each time, and no test decided by time."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

PROPERTY = settings(deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
