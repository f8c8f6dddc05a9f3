"""The steps of a run, one file each: weigh -> teach -> distill -> evaluate. `run_all` runs them in order, `plan`
estimates time and disk, `reproduce` repeats a run and compares bit for bit.
"""
