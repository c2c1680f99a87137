"""The commands that set flush policies beside each other."""
