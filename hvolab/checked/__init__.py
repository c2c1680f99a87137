"""Values out of files that nobody vouches for: limits, places with names, one error."""
