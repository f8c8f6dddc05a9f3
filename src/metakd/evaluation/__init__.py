"""The quality and the costs of a model: predictions, accuracy and macro-F1 with intervals, paired tests over seeds,
latency, the TF-IDF baseline, and the probe for the domain.
"""
