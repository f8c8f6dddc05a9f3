"""The steps of a run, one file each: weigh -> teach -> distill -> evaluate. `run_all` takes them in turn, `plan` says
what they will take, `reproduce` repeats them and compares bit for bit.
"""
