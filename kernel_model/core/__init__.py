"""What all kernel code stands on: events, locks, RCU, static keys, calls to CPUs, lists."""
