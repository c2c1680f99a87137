"""Ways through the runs: the interface, and every strategy but the reduced search."""
