"""metakd: one pretrained language model and text from several domains in, one small classifier for each domain out.

The steps as functions: `weigh`, `teach`, `distill`, `evaluate`, or `run_all`; `Run.assemble(...).begin()` opens a
folder for them; `Classifier.from_pretrained(folder).predict(texts)` uses a student.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from metakd.config.settings import Settings
from metakd.utils.errors import CheckError, InputError, require

if TYPE_CHECKING:
    from metakd.data.dataset import load_dataset as load_dataset
    from metakd.inference.classifier import Classifier as Classifier
    from metakd.pipeline.distill import distill as distill
    from metakd.pipeline.distill import distill_all as distill_all
    from metakd.pipeline.evaluate import evaluate as evaluate
    from metakd.pipeline.evaluate import evaluate_file as evaluate_file
    from metakd.pipeline.run_all import run_all as run_all
    from metakd.pipeline.teach import teach as teach
    from metakd.pipeline.weigh import weigh as weigh
    from metakd.runs.run import Run as Run

__version__ = "0.1.0"

_HOMES = {
    "Classifier": "inference.classifier",
    "Run": "runs.run",
    "distill": "pipeline.distill",
    "distill_all": "pipeline.distill",
    "evaluate": "pipeline.evaluate",
    "evaluate_file": "pipeline.evaluate",
    "load_dataset": "data.dataset",
    "run_all": "pipeline.run_all",
    "teach": "pipeline.teach",
    "weigh": "pipeline.weigh",
}
__all__ = ["CheckError", "InputError", "Settings", *_HOMES]
LIGHT = ("Classifier", "load_dataset")  # these check for themselves what they need


def __dir__() -> list[str]:
    return sorted(__all__)


def __getattr__(name: str) -> Any:
    """Import what needs torch only when it is used, so that the command line starts at once."""
    if name not in _HOMES:
        raise AttributeError(f"module 'metakd' has no attribute {name!r}")
    for module in ("torch", "transformers", "accelerate", "sklearn") if name not in LIGHT else ():
        require(module, "train")
    return getattr(import_module(f"metakd.{_HOMES[name]}"), name)
