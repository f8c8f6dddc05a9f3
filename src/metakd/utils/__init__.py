"""What every package leans on: errors that users can mend, files that are whole or absent, locks, signals, several
processes, the machine, and checks of what cannot be trusted. Nothing here knows of text, models or training.
"""
