"""`python -m hvolab` is the command `hvolab`."""

from hvolab.cli import main

main()
