"""metakd: one large language model and text from several domains in, one small model for each domain out.

The steps as functions: `weigh`, `teach`, `distill`, `evaluate`, or `run_all`; `Run.assemble(...).begin()` opens a
folder for them; `Classifier.load(folder).predict(texts)` uses a student.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from metakd.config import Settings
from metakd.errors import CheckError, InputError, require

if TYPE_CHECKING:
    from metakd.domains import load_dataset
    from metakd.inference import Classifier
    from metakd.pipeline import distill, distill_all, run_all, teach, weigh
    from metakd.runs import Run
    from metakd.scoring import evaluate, evaluate_file

__all__ = [
    "CheckError",
    "Classifier",
    "InputError",
    "Run",
    "Settings",
    "distill",
    "distill_all",
    "evaluate",
    "evaluate_file",
    "load_dataset",
    "run_all",
    "teach",
    "weigh",
]
__version__ = "0.1.0"

_HOMES = {
    "Classifier": "inference",
    "Run": "runs",
    "distill": "pipeline",
    "distill_all": "pipeline",
    "evaluate": "scoring",
    "evaluate_file": "scoring",
    "load_dataset": "domains",
    "run_all": "pipeline",
    "teach": "pipeline",
    "weigh": "pipeline",
}


LIGHT = ("Classifier", "load_dataset")  # say themselves what they need, if it is more


def __getattr__(name: str) -> Any:
    """Import what needs torch only when it is asked for, so that the command line starts at once."""
    if name not in _HOMES:
        raise AttributeError(f"module 'metakd' has no attribute {name!r}")
    for module in ("torch", "transformers", "accelerate", "sklearn") if name not in LIGHT else ():
        require(module, "train")
    return getattr(import_module(f"metakd.{_HOMES[name]}"), name)
