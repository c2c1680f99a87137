"""A finding told again: shrunk, and as a script."""
