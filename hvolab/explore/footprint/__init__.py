"""Footprints: what a step touched, what enabled it, what judges asked in it; and when two conflict."""
