"""Thresholds of several labels: a text is given those with a probability above theirs."""

HALF = 0.5  # threshold of a label, unless dev has decided on another


def are_thresholds(values: object, labels: int | None = None) -> bool:
    """Whether a file has thresholds here: a list of numbers between 0 and 1, of as many `labels` as there are."""
    if not isinstance(values, list) or labels not in (None, len(values)):
        return False
    return all(type(value) in (int, float) and 0 < value < 1 for value in values)
