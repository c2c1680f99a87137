"""What one CPU may translate: entries, the walk, what is cached of it, CPU models."""
