"""Exploration: many runs of one scenario, each along another way, and what they found.

Runs are made again and again on one machine that goes back to time zero. Here there is no reduction: two
schedules that differ only in the order of steps that do not matter to each other are two runs.
"""
