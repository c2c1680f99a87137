"""What is right and wrong: verdicts, invariants, why, and what is known to be wrong in upstream."""
