"""Every setting once: its flag, YAML key, type, default, help and the paper's value; and files of settings, read as
untrusted text.
"""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from textwrap import shorten
from typing import Any, Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from metakd.data.schema import FIELDS
from metakd.utils.errors import InputError, listed, require, shown
from metakd.utils.validation import damage

LONGEST_FILE = 100_000  # characters of a file of settings
EPOCHS: dict[str, Any] = {"ge": 0, "le": 10_000}

Term = Literal["embedding", "hidden", "attention", "prediction", "feature"]
Tracker = Literal["tensorboard", "none", "clearml", "comet_ml", "dvclive", "mlflow", "swanlab", "trackio", "wandb"]


def setting(default: Any, text: str, paper: str = "", **bounds: Any) -> Any:
    """A field with its help and the value in the paper or its authors' training scripts, if there is one."""
    return Field(default=default, description=text, json_schema_extra={"paper": paper}, **bounds)


class Settings(BaseModel):
    """All that a run depends on besides its data. `docs/settings.md` is made of this class."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    # Data, models and method
    columns: dict[str, str] = setting({}, "Columns that have other names in the data: 'text=review,domain=genre'.")
    encoding: str = setting("utf-8", "Encoding of text files.")
    data_config: str | None = setting(None, "Configuration of a hub dataset that has several.")
    drop_leaks: bool = setting(False, "Drop rows of train and dev whose text stands in a later split.")
    base: str = setting(
        "sentence-transformers/all-MiniLM-L6-v2",
        "Pretrained encoder that becomes the teacher: a folder or a model id.",
        "bert-base-uncased",
    )
    student: str = setting(
        "layers=3", "The small model: 'layers=N' cuts it from the base, else a folder or model id.", "TinyBERT-4L-312D"
    )
    student_init: Literal["base", "teacher"] = setting("teacher", "Source of a cut student's layers.", "own checkpoint")
    max_length: int = setting(128, "Tokens a text is cut to, special ones included.", "128", ge=4, le=1_000_000)
    method: str = setting("meta_kd", "How the student learns; `metakd methods` lists them.", "meta_kd")
    baseline: bool = setting(
        True, "Train `fine_tuned_shared` as well: the same students, about as many updates, on labels alone."
    )
    baseline_learning_rate: float = setting(1e-4, "Peak learning rate of the first stage on labels alone.", gt=0)
    seed: int = setting(0, "Seed of every random draw.", ge=0, lt=2**31)

    # Instance weights
    alpha: float = setting(0.5, "Share of the home prototype in the prototype score t.", "0.5", ge=0, le=1)
    weights: Literal["normalized", "raw", "none"] = setting(
        "normalized", "t divided by its mean, or as it is; 'none' counts every example once.", "raw"
    )

    # Meta-teacher
    domain_loss: Literal["false", "permuted", "uniform", "reversal", "none"] = setting(
        "false", "Kind of the domain loss L_dom.", "false"
    )
    gamma1: float = setting(0.5, "Coefficient of L_dom.", "0.5", ge=0)
    heads: Literal["one", "domain"] = setting("one", "Class heads of the teacher: one, or one for each domain.", "one")
    teacher_epochs: int = setting(3, "Epochs of the meta-teacher over all domains.", "3", **EPOCHS | {"ge": 1})
    teacher_learning_rate: float = setting(5e-5, "Peak learning rate of the meta-teacher.", "2e-5", gt=0)
    allow_weak_teacher: bool = setting(False, "Distil from a teacher hardly better than the majority class.")

    # Distillation
    terms: tuple[Term, ...] = setting(get_args(Term), "Loss terms of the student.", "all")
    stages: Literal["two", "joint"] = setting("joint", "Layers before predictions, or all terms at once.", "two")
    shared_epochs: int = setting(
        5, "Epochs over all domains' text of one student, from which each domain's starts; 0 for none.", "0", **EPOCHS
    )
    shared_learning_rate: float = setting(4e-4, "Peak learning rate of the shared start.", gt=0)
    match_epochs: int = setting(0, "Epochs of the first stage (two stages only); 0 skips it.", "10", **EPOCHS)
    match_learning_rate: float = setting(5e-5, "Peak learning rate of the first stage.", "5e-5", gt=0)
    predict_epochs: int = setting(
        1, "Epochs of the second stage, or of the joint one; 0 leaves every domain the shared start.", "3", **EPOCHS
    )
    predict_learning_rate: float = setting(5e-5, "Peak learning rate of the second or joint stage.", "3e-5", gt=0)
    windows: int = setting(
        2, "Extra windows of `max_length` tokens for distilled students from each longer text.", "0", ge=0, le=10_000
    )
    crops: int = setting(0, "Random crops for distilled students from each training text.", "0", ge=0, le=100)
    gamma2: float = setting(0.5, "Coefficient of L_tkd.", "0.5", ge=0)
    temperature: float = setting(1.0, "Temperature T of L_pred.", "1", gt=0)
    expertise: Literal["soft", "hard", "none"] = setting(
        "soft", "λ by the teacher's probability of the true class, or by whether it is right; 'none' for λ = 1.", "soft"
    )
    attention: Literal["auto", "scores", "relation"] = setting(
        "auto", "Match attention by raw scores or token relations; 'auto': scores if both models have them.", "scores"
    )
    layer_map: str = setting("auto", "Teacher layer for each student layer: 'auto', or such as '2,4,6'.", "auto")

    # Optimisation
    batch_size: int = setting(32, "Examples in a batch.", "32", ge=1, le=100_000)
    warmup: float = setting(0.1, "Share of the updates that warm the learning rate up.", "0.1", ge=0, lt=1)
    weight_decay: float = setting(0.01, "Weight decay of AdamW.", "0.01", ge=0)
    dropout: float = setting(0.0, "Dropout of hidden states while training.", "0.1", ge=0, lt=1)
    attention_dropout: float = setting(
        0.0, "Dropout of attention while training; 0 lets CPUs use fused attention.", "0.1", ge=0, lt=1
    )

    # Cost
    precision: Literal["auto", "float32", "bfloat16"] = setting(
        "auto", "Precision of matrix products but in scoring; 'auto' is bfloat16 where the device has it natively."
    )
    cache_budget: float | None = setting(
        None, "Gigabytes of disk for the teacher cache while students learn; default: a quarter of the free disk.", ge=0
    )
    track: Tracker = setting("tensorboard", "Where training losses go: files in the run's folder, or a tracker.")
    keep_cache: bool = setting(False, "Keep the teacher cache when the run is done.")

    # Scores
    bootstrap: int = setting(1000, "Resamples behind each 95 % interval.", ge=100, le=1_000_000)

    @model_validator(mode="before")
    @classmethod
    def _parse(cls, values: Any) -> Any:
        """Lists as flags write them, and YAML's `false` and [2, 4, 6], in the types of the fields."""
        values = dict(values)
        if isinstance(values.get("terms"), str):
            values["terms"] = tuple(term.strip() for term in values["terms"].split(",") if term.strip())
        if isinstance(values.get("columns"), str):
            pairs = [pair.partition("=")[::2] for pair in values["columns"].split(",") if pair.strip()]
            values["columns"] = {field.strip(): column.strip() for field, column in pairs}
        if values.get("domain_loss") is False:
            values["domain_loss"] = "false"
        if isinstance(values.get("layer_map"), list):
            values["layer_map"] = ",".join(map(str, values["layer_map"]))
        return values

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        faults = [f"{k}: {fault}" for k, value in self if isinstance(value, str) and (fault := damage(value))]
        faults += [
            f"columns: write FIELD=COLUMN with a field of {', '.join(FIELDS)}, not {listed([name])}={listed([column])}"
            for name, column in self.columns.items()
            if name not in FIELDS or not column
        ]
        from_teacher = self.student_init == "teacher" and self.student.startswith("layers")
        two, predicts = self.stages == "two", "prediction" in self.terms
        if not self.terms or len(set(self.terms)) != len(self.terms):
            faults.append("terms: name at least one term, and each once")
        if two and not predicts:
            faults.append("stages: the second of two stages needs the term 'prediction'; add it or choose 'joint'")
        elif not predicts and not from_teacher:
            faults.append("terms: a student that does not start from the teacher learns no class without 'prediction'")
        if two and self.match_epochs and set(self.terms) == {"prediction"}:
            faults.append("match_epochs: the first stage has no term to learn from; set it to 0 or choose 'joint'")
        if not two and self.match_epochs:
            faults.append("match_epochs: a joint stage has no first one; leave it at 0, or choose stages = 'two'")
        if not (self.shared_epochs or self.predict_epochs or (two and self.match_epochs)):
            faults.append("predict_epochs: with no shared start and no first stage, 0 leaves nothing to learn")
        if faults:
            raise ValueError("; ".join(faults))
        return self

    @property
    def domain_epochs(self) -> int:
        """Epochs of a domain's student after the shared start."""
        return self.predict_epochs + (self.match_epochs if self.stages == "two" else 0)

    def reading(self) -> dict[str, Any]:
        """The arguments of `load_dataset` besides the data and the seed."""
        return {name: getattr(self, name) for name in ("columns", "encoding", "data_config", "drop_leaks")}

    @classmethod
    def build(cls, values: Mapping[str, Any], source: str = "settings") -> Settings:
        """Settings from `values`; raises one InputError that names every fault and the nearest valid key."""
        try:
            return cls(**values)
        except ValidationError as error:
            raise InputError.collect(source, [_explain(fault) for fault in error.errors()]) from None


def _explain(fault: Mapping[str, Any]) -> str:
    name = ".".join(str(part) for part in fault["loc"])
    if fault["type"] == "extra_forbidden":
        near = difflib.get_close_matches(name, Settings.model_fields, n=1)
        return f"{listed([name])}: no such setting" + (f"; did you mean {near[0]!r}?" if near else "")
    message = str(fault["msg"]).removeprefix("Value error, ")
    return f"{listed([name])} = {shown(fault['input'])}: {message}" if name else message


def read_settings_file(path: Path) -> dict[str, Any]:
    """The keys and values of a YAML file, unchecked; `Settings.build` checks them.

    InputError for what YAML allows and no file of settings needs: aliases, a few lines of which can stand for
    billions of values, and a key that is there twice.
    """
    yaml = require("yaml", "train")
    try:
        with path.open(encoding="utf-8") as file:
            text = file.read(LONGEST_FILE + 1)
        if len(text) > LONGEST_FILE:
            raise InputError(f"{path}: longer than {LONGEST_FILE:,} characters, so it is no file of settings")
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, yaml.SafeLoader)):
            raise InputError(f"{path}: holds an alias ('*name'); write the value out")
        if repeated := _repeated_keys(yaml.compose(text, yaml.SafeLoader)):
            raise InputError(f"{path}: {listed(repeated)} is there more than once; keep one")
        values = yaml.safe_load(text)
    except InputError:
        raise
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    except Exception as error:  # besides YAMLError whatever the types of its values raise, such as a 13th month
        raise InputError(f"{path}: not valid YAML ({shorten(str(error), 300) or type(error).__name__})") from None
    if values is None:
        return {}
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise InputError(f"{path}: expected 'setting: value' lines, one for each setting")
    return values


def _repeated_keys(node: Any) -> list[str]:
    """The keys that a mapping of YAML's tree, or one within it, has more than once: YAML itself keeps the last."""
    if not isinstance(node, require("yaml", "train").MappingNode):
        return []
    repeated = [key for key, count in Counter(str(key.value) for key, _ in node.value).items() if count > 1]
    return repeated or next(filter(None, (_repeated_keys(value) for _, value in node.value)), [])
