"""Shared foundations: errors that users can mend, files that are whole or absent, locks, signals, several processes,
the machine, and checks of untrusted input. Nothing here depends on text, models or training.
"""
