"""`python -m hvolab` is the command `hvolab`."""

from hvolab.command.main import main

main()
