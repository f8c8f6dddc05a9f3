"""Trained students as ONNX models that need no torch: compared with PyTorch, scored, timed and with a model card; and
the search for the best model within a budget of milliseconds and megabytes.
"""
