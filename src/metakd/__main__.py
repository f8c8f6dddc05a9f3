"""`python -m metakd` is `metakd`."""

from metakd.cli.main import main

main()
