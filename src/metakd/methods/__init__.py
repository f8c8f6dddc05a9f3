"""The methods by name. A new one is a file beside this and a line here."""

from metakd.methods.base import Method
from metakd.methods.fine_tuned import FineTuned
from metakd.methods.fine_tuned_shared import FineTunedShared
from metakd.methods.meta_kd import MetaKD
from metakd.methods.metadistil import MetaDistil

METHODS: dict[str, type[Method]] = {
    "meta_kd": MetaKD,
    "fine_tuned": FineTuned,
    "fine_tuned_shared": FineTunedShared,
    "metadistil": MetaDistil,
}
