"""Private stretches: steps that touch what no other process touches, made without a scheduling point."""
