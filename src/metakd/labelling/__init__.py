"""Labels from a large language model: a prompt for each text, and the probability of each label as the answer."""

__all__: list[str] = []
