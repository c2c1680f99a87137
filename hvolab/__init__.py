"""The questions: scenarios, what decides about them, and the command that asks.

The only package that may import all the others. Read in this order: scenario, catalog, run, monitor,
verdict, report, cli; then explore.
"""
