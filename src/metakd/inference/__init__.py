"""Texts in, labels and probabilities out: `Classifier` runs a saved model with PyTorch, or an exported one with
ONNX Runtime and without torch.
"""
