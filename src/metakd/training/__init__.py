"""Training: a transformers.Trainer around a module whose forward gives loss terms, checkpoints that resume to the same
bits, and the cache of teacher outputs that students learn from.
"""
