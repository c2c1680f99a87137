"""What is run: scenarios, schedules, scripts, and the run itself."""
