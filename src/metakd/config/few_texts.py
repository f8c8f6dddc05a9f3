"""Few training texts, or many labels, need other values than the defaults."""

import math
from typing import Any

FEW_TEXTS = 4_000  # below which defaults change
LEAST_UPDATES, UPDATES_PER_LABEL, OF_SEVERAL = 250, 7, 14  # of their teacher; OF_SEVERAL labels a text may have
MANY_LABELS, RATE_OF_MANY = 20, 2e-4  # for which the teacher needs a higher rate


def sized_for(settings: Any, rows: int, labels: int, several: bool = False) -> dict[str, Any]:
    """The values of `settings.Settings`, which this module cannot import, that so many texts and labels change.

    From MANY_LABELS on, the teacher learns at RATE_OF_MANY. Texts below FEW_TEXTS are read in smaller batches, at a
    higher rate of the teacher in any case, and so often that the teacher gets LEAST_UPDATES, or more for many labels
    (and still more if a text may have `several`), and a shared start twice as many. What was chosen stays.
    """
    values: dict[str, Any] = {"teacher_learning_rate": RATE_OF_MANY} if labels >= MANY_LABELS else {}
    if rows < FEW_TEXTS:
        values = {"batch_size": 16, "teacher_learning_rate": 1e-4} | values
        batch_size = settings.batch_size if "batch_size" in settings.model_fields_set else values["batch_size"]
        updates = max(LEAST_UPDATES, labels * (OF_SEVERAL if several else UPDATES_PER_LABEL))
        passes = updates / math.ceil(rows / batch_size)
        values["teacher_epochs"] = max(settings.teacher_epochs, math.ceil(passes))
        values["shared_epochs"] = max(settings.shared_epochs, math.ceil(2 * passes))
    if not settings.teacher_epochs:  # nothing of the teacher's training changes
        values.pop("teacher_learning_rate", None)
    changed = {name: value for name, value in values.items() if name not in settings.model_fields_set}
    return {name: value for name, value in changed.items() if value != getattr(settings, name)}
