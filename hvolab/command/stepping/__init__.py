"""`hvolab step`: a run event by event."""
