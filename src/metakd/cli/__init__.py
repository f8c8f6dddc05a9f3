"""The command line: one module a group of commands. Nothing is computed here."""
