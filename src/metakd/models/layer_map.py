"""Which teacher layer each student layer imitates."""

from metakd.utils.errors import InputError


def map_layers(student_layers: int, teacher_layers: int, explicit: str = "auto") -> list[int]:
    """The teacher layer (1 is the first) that each student layer imitates: round(j · T / S), halves up.

    An explicit map such as '2,4,6' overrides; raises InputError where it does not fit.
    """
    if explicit == "auto":
        steps = range(1, student_layers + 1)
        return [max(1, (2 * j * teacher_layers + student_layers) // (2 * student_layers)) for j in steps]
    try:
        layers = [int(part) for part in explicit.split(",")]
    except ValueError:
        layers = []
    if len(layers) != student_layers or any(not 1 <= layer <= teacher_layers for layer in layers):
        raise InputError(
            f"layer_map = {explicit!r}: expected {student_layers} numbers from 1 to {teacher_layers}, "
            f"one for each student layer, for instance {','.join(map(str, map_layers(student_layers, teacher_layers)))}"
        )
    return layers
