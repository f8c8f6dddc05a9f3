"""Texts in, labels and probabilities out: `Classifier` runs a saved model by PyTorch, or an exported one by ONNX
Runtime without torch.
"""
