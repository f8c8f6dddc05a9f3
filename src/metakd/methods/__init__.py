"""The methods by name. A new method is a file in this folder and an entry here."""

from metakd.methods.base import Method
from metakd.methods.cross_domain import CrossDomain
from metakd.methods.fine_tuned import FineTuned
from metakd.methods.fine_tuned_shared import FineTunedShared
from metakd.methods.hrkd import HRKD
from metakd.methods.meta_kd import MetaKD
from metakd.methods.metadistil import MetaDistil
from metakd.methods.self_trained import SelfTrained
from metakd.methods.soft_labels import SoftLabels

METHODS: dict[str, type[Method]] = {
    "meta_kd": MetaKD,
    "cross_domain": CrossDomain,
    "hrkd": HRKD,
    "metadistil": MetaDistil,
    "soft_labels": SoftLabels,
    "fine_tuned": FineTuned,
    "fine_tuned_shared": FineTunedShared,
    "self_trained": SelfTrained,
}
BASELINE = "fine_tuned_shared"  # what a run's method is compared with
