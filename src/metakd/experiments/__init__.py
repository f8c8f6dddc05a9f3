"""Methods, parts and sizes compared over several seeds: a variant with one seed is a trial, its results are a row of
the results store, and the report is made from rows alone.
"""
