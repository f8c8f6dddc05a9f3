"""The command line: one module per group of commands. Nothing is computed here."""
