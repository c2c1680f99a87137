"""What flush policies cost in cycles of a model, against the number of CPUs and the size of a batch."""
