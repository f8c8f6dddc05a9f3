"""Shared foundations: errors for users, atomic writes, locks, signals, multiple processes, the machine, and checks of
untrusted input.
"""
