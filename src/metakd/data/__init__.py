"""Text in: a user's file, folder, hub dataset or table -> checked examples of several domains, their splits, tokens and
batches. The domain is part of every example, and later packages read the user's files through this one alone.
"""
