"""States: all that the rest of a run depends on as a value, and which of them a search has been in before."""
