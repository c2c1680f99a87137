"""Sight: the only eyes that judges have. What is asked of it is known to who watches."""
