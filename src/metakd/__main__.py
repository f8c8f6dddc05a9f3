"""`python -m metakd` is `metakd`."""

from metakd.cli import main

main()
