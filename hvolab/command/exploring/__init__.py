"""How `hvolab explore` goes about it: plans, what is told, and every scenario in turn."""
