"""Named deviations of the port: each a historic bug, or one protective step taken out.

A variant overrides the functions it deviates in and nothing else. `VARIANTS` has them all, by name.
"""
