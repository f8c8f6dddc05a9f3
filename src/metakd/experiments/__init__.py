"""Experiments compare variants over several seeds. A variant with one seed is a trial, its results are rows of the
results store, and the report is made from rows only.
"""
