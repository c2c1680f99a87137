"""Scenarios whose one run takes seconds: not run in tests that run every scenario."""

LARGE_RUNS = ("remap-1g", "rollback", "rollback-second")
