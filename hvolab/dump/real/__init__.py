"""Between dumps and systems: boot what a dump describes, operate on it, and dump what it has become."""
