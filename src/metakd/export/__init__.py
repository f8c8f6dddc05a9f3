"""Students out: ONNX files that need no torch, checked, scored and timed against PyTorch, with a model card; and the
best model for a budget of milliseconds and megabytes.
"""
