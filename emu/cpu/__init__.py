"""A CPU: what its code asks for, how that is carried out, contexts, waiting, interrupts."""
