"""The reduced search: footprints, happens-before, source sets."""
