"""Language models: a name -> a folder -> an encoder with the same outputs for every family, the student that is cut
from it, and the meta-teacher that is built on it.
"""
