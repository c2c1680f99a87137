"""Scenarios that show bugs, each with the variants that have them."""
