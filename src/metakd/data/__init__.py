"""Text in: one file -> rows, whatever a user hands over -> checked examples of several domains, their splits, their
tokens and batches. A domain is part of every example, and no step after this reads a file of the user's.
"""
