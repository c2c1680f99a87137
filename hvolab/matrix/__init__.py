"""Many explorations at once: flush policies beside scenarios, a cell each."""
