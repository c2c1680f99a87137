"""What a person or a program reads: reports, timelines, JSON."""
