"""Language models: a name -> a folder -> an encoder that gives the same outputs whatever its family, the student that
is cut from it, and the meta-teacher that is built on it.
"""
