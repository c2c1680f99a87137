"""What a user's own file brings: read, checked, and used like what comes with the project."""
