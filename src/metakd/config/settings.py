"""Every setting once: its flag, YAML key, type, default, help and the paper's value."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from metakd.config import few_texts
from metakd.config.groups import READ_BY
from metakd.config.setting_faults import explained, faults_between
from metakd.utils.errors import InputError

DEMO_DATA = Path(__file__).parents[1] / "demo_data"
DEMO_SETTINGS = DEMO_DATA / "settings.yaml"
LONGEST = 1_000_000  # tokens of a text
LORA_RATE = 5e-4  # of the teacher
EPOCHS: dict[str, Any] = {"ge": 0, "le": 10_000}

PaperTerm = Literal["embedding", "hidden", "attention", "prediction", "feature"]
Term = Literal[PaperTerm, "pooled"]
Tracker = Literal["tensorboard", "none", "clearml", "comet_ml", "dvclive", "mlflow", "swanlab", "trackio", "wandb"]


def setting(default: Any, text: str, paper: str = "", **bounds: Any) -> Any:
    """A field with its help and the value in the paper or its authors' training scripts, if there is one."""
    return Field(default=default, description=text, json_schema_extra={"paper": paper}, **bounds)


class Settings(BaseModel):
    """Everything that a run depends on besides its data. `docs/settings.md` is generated from this class."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    # Data, models and method
    columns: dict[str, str] = setting({}, "Columns with other names: 'text=review,label=stars,domain=genre'.")
    encoding: str = setting("utf-8", "Encoding of text files.")
    data_config: str | None = setting(None, "Configuration of a hub dataset, if it has several.")
    unlabelled: str | None = setting(
        None,
        "Unlabelled text that students learn from too: a file or folder like --data, with text and, if known, domain.",
    )
    unlabelled_rows: bool = setting(False, "Take rows of train with an empty label as unlabelled text, not as faults.")
    max_unlabelled: int | None = setting(
        None, "The most unlabelled texts, drawn by seed, evenly from the domains.", ge=1
    )
    min_confidence: float = setting(
        0.0, "Leave out unlabelled texts whose likeliest label has a lower probability by the teacher.", ge=0, le=1
    )
    max_share: float = setting(
        1.0,
        "Largest share of one label among a domain's unlabelled texts; the least sure above it are left out.",
        gt=0,
        le=1,
    )
    soft_labels: bool = setting(
        False, "Learn from the columns probabilities or teacher_label of train, as a large model has filled them."
    )
    probability_labels: tuple[str, ...] = setting((), "Labels of lists of probabilities, in order, like 'bad,good'.")
    gold_weight: float = setting(
        0.75, "Weight of the gold label where a row has both; the rest is the soft label's (β).", ge=0, le=1
    )
    label_columns: tuple[str, ...] = setting(
        (), "Columns of 0 and 1, one for each label: a text may have several, or none. Like 'refund,delivery'."
    )
    label_separator: str = setting("", "Separator of several labels in the column label, like ';'.")
    cut: str = setting(
        "auto",
        "Percent for train, dev and test if the data is one file, as in '80/10/10'; 'auto': that, with more for test "
        "in domains that would have under 50 texts there.",
    )
    skip_bad_rows: bool = setting(False, "Leave out rows with faults; a run lists them in skipped_rows.txt.")
    drop_duplicates: bool = setting(False, "Keep one row of each text, label and domain of a split.")
    drop_leaks: bool = setting(False, "Drop rows of train and dev whose text is also in a later split.")
    base: str = setting(
        "sentence-transformers/all-MiniLM-L6-v2",
        "Pretrained encoder that becomes the teacher: a folder or a model id.",
        "bert-base-uncased",
    )
    teacher: str | None = setting(
        None,
        "A fine-tuned classifier that teaches as it is: a folder or a model id. It takes the place of --base, unless "
        "that is given too; --teacher-epochs fine-tunes it further.",
    )
    teacher_labels: tuple[str, ...] = setting(
        (), "Class names of --teacher, in the order of its outputs, if its config.json has others, like 'bad,good'."
    )
    student: str = setting(
        "layers=3",
        "The small model: 'layers=N' of the teacher (see --student-init), or a checkpoint's folder or model id.",
        "TinyBERT-4L-312D",
    )
    labels: Literal["own", "shared"] = setting(
        "own", "Classes of a domain's student: those of its domain's text, or all labels ('shared').", "shared"
    )
    student_init: Literal["base", "teacher"] = setting(
        "teacher",
        "Where the layers of a 'layers=N' student come from: the base, or the fine-tuned teacher.",
        "own checkpoint",
    )
    max_length: int = setting(128, "Tokens that models read at once, special ones included.", "128", ge=4, le=LONGEST)
    long_texts: Literal["first", "longer", "mean", "adaptive"] = setting(
        "mean",
        "What models read of longer texts when they predict. 'first': the first window; 'longer': up to --read-length "
        "tokens at once; 'mean': all windows, averaging log-probabilities; 'adaptive': window by window until sure "
        "enough, as dev decides.",
        "first",
    )
    most_windows: int = setting(8, "The most windows of a text that models read when they predict.", ge=1, le=10_000)
    stride: int = setting(0, "Tokens by which consecutive windows overlap.", ge=0)
    read_length: int = setting(
        512, "Tokens read at once with --long-texts longer, as far as the encoder has positions.", ge=4, le=LONGEST
    )
    method: str = setting("meta_kd", "How students learn; `metakd methods` lists all.", "meta_kd")
    baseline: bool = setting(
        True, "Also train the baseline `fine_tuned_shared`: the same small models on labels alone."
    )
    baseline_learning_rate: float = setting(1e-4, "Peak learning rate of the baseline's first stage.", gt=0)
    seed: int = setting(0, "Seed of all random numbers.", ge=0, lt=2**31)

    class_weights: Literal["none", "balanced"] = setting(
        "none", "Weight of a text where models learn from labels: 'balanced' lets rare classes count as much as others."
    )

    # Instance weights
    alpha: float = setting(0.5, "Share of a text's own domain in its prototype score (α).", "0.5", ge=0, le=1)
    weights: Literal["normalized", "raw", "none"] = setting(
        "normalized", "Instance weights t: divided by their mean, as they are, or all 1.", "raw"
    )

    # Meta-teacher
    domain_loss: Literal["false", "permuted", "none"] = setting(
        "false",
        "Domain loss of the teacher (L_dom). 'false': cross-entropy to the false, that is wrong, domains, as in the "
        "paper; 'permuted': to shuffled domains, as in the released code; 'none': no such loss.",
        "false",
    )
    gamma1: float = setting(0.5, "Weight of the domain loss (γ1).", "0.5", ge=0)
    heads: Literal["one", "domain"] = setting(
        "one", "Classification heads of the teacher: one for all domains, or one for each.", "one"
    )
    teacher_epochs: int = setting(
        3, "Epochs of the teacher over all domains' text; with --teacher, by default 0.", "3", **EPOCHS
    )
    teacher_learning_rate: float = setting(
        5e-5, "Peak learning rate of the teacher; with --lora-rank, by default 5e-4.", "2e-5", gt=0
    )
    lora_rank: int | None = setting(
        None, "Fine-tune the teacher by low-rank updates of this rank (LoRA) instead of all weights.", ge=1, le=4096
    )
    lora_targets: str = setting(
        "auto", "Linear layers that LoRA adapts, by the last part of their names: 'q_proj,v_proj', or 'auto' for all."
    )
    gradient_checkpointing: bool = setting(False, "Recompute the teacher's activations for gradients, to save memory.")
    gradient_accumulation: int = setting(
        1, "Parts into which a batch of the teacher is split to save memory; --batch-size stays what it is.", ge=1
    )
    teacher_tries: int = setting(
        2,
        "Times that a teacher near chance on its training text is trained, each at another learning rate.",
        ge=1,
        le=3,
    )
    allow_weak_teacher: bool = setting(False, "Distil even if the teacher is hardly better than the most common class.")

    # Distillation
    terms: tuple[Term, ...] = setting(get_args(PaperTerm), "Students' loss terms, by commas; also 'pooled'.", "all")
    stages: Literal["two", "joint"] = setting(
        "joint", "Match layers first and predictions later, or all terms at once.", "two"
    )
    shared_epochs: int = setting(
        5,
        "Epochs of the shared start: one student on all domains' text, from which all others start; 0 for none.",
        "0",
        **EPOCHS,
    )
    shared_learning_rate: float = setting(4e-4, "Peak learning rate of the shared start.", gt=0)
    match_epochs: int = setting(0, "Epochs of the first of two stages; 0 skips it.", "10", **EPOCHS)
    match_learning_rate: float = setting(5e-5, "Peak learning rate of the first of two stages.", "5e-5", gt=0)
    predict_epochs: int = setting(
        1,
        "Epochs on each domain's text (second or joint stage); 0 uses the shared start for every domain.",
        "3",
        **EPOCHS,
    )
    predict_learning_rate: float = setting(
        5e-5, "Peak learning rate on each domain's text (second or joint stage).", "3e-5", gt=0
    )
    windows: int = setting(2, "Extra windows of each long text from which students learn.", "0", ge=0, le=10_000)
    teacher_windows: int = setting(
        0, "Extra windows of each long text for teacher and instance weights; a text counts once.", "0", ge=0, le=10_000
    )
    crops: int = setting(0, "Random crops of each text from which students learn.", "0", ge=0, le=100)
    gamma2: float = setting(0.5, "Weight of the transferable-knowledge loss (γ2, L_tkd).", "0.5", ge=0)
    temperature: float = setting(1.0, "Temperature of the prediction loss (T, L_pred).", "1", gt=0)
    expertise: Literal["soft", "hard", "none"] = setting(
        "soft",
        "Expertise weights λ: by the teacher's probability of the true class, by whether it is right, or all 1.",
        "soft",
    )
    attention: Literal["auto", "scores", "relation"] = setting(
        "auto",
        "Match attention scores, or relations between tokens; 'auto': scores if both models have them.",
        "scores",
    )
    layer_map: str = setting(
        "auto", "Teacher layer that each student layer imitates: 'auto', or a list like '2,4,6'.", "auto"
    )
    start_layers: str = setting(
        "auto",
        "Layers that a 'layers=N' student starts from: 'auto' (those of --layer-map), or a list like '1,2,3'.",
        "own checkpoint",
    )

    # Optimisation
    batch_size: int = setting(32, "Texts in a batch.", "32", ge=1, le=100_000)
    warmup: float = setting(
        0.1, "Share of the updates in which the learning rate rises to its peak.", "0.1", ge=0, lt=1
    )
    weight_decay: float = setting(0.01, "Weight decay of AdamW.", "0.01", ge=0)
    dropout: float = setting(0.0, "Dropout of hidden states while training.", "0.1", ge=0, lt=1)
    attention_dropout: float = setting(
        0.0, "Dropout of attention while training; 0 lets CPUs use fused attention.", "0.1", ge=0, lt=1
    )

    # Cost
    precision: Literal["auto", "float32", "bfloat16"] = setting(
        "auto", "Precision of matrix products in training; 'auto': bfloat16 if the device has it natively."
    )
    cache_budget: float | None = setting(
        None, "Gigabytes of disk for the teacher cache (default: a quarter of what is free).", ge=0
    )
    track: Tracker = setting(
        "tensorboard", "Where training losses go: TensorBoard files in the run's folder, nowhere, or a tracker."
    )
    keep_cache: bool = setting(False, "Keep the teacher cache after the run.")

    @model_validator(mode="before")
    @classmethod
    def _parse(cls, values: Any) -> Any:
        """Convert lists as flags write them, and YAML's [2, 4, 6], to the types of the fields."""
        values = dict(values)
        for name in ("terms", "probability_labels", "teacher_labels", "label_columns"):
            if isinstance(values.get(name), str):
                values[name] = tuple(part.strip() for part in values[name].split(",") if part.strip())
        if isinstance(values.get("columns"), str):
            pairs = [pair.partition("=")[::2] for pair in values["columns"].split(",") if pair.strip()]
            values["columns"] = {field.strip(): column.strip() for field, column in pairs}
            if len(values["columns"]) < len(pairs):
                raise ValueError("--columns: names a field more than once; keep one column for each")
        if values.get("teacher"):
            values = {"base": values["teacher"], "teacher_epochs": 0} | values
        if values.get("lora_rank"):
            values = {"teacher_learning_rate": LORA_RATE} | values
        if values.get("domain_loss") is False:
            raise ValueError(
                "domain_loss: false, in YAML, is no text; write none for no such loss, or 'false' in quotes"
            )
        for name in ("layer_map", "start_layers"):
            if isinstance(values.get(name), list):
                values[name] = ",".join(map(str, values[name]))
        return values

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        faults = faults_between(self)
        if faults:
            raise ValueError("; ".join(faults))
        return self

    def reading(self) -> dict[str, Any]:
        """The arguments of `load_dataset` besides the data and the seed."""
        return {name: getattr(self, name) for name in READ_BY}

    def sized_for(self, rows: int, labels: int, several: bool = False) -> Settings:
        """These settings for so many training texts and labels [few_texts]; what was chosen stays."""
        return self.model_copy(update=few_texts.sized_for(self, rows, labels, several))

    @classmethod
    def build(cls, values: Mapping[str, Any], source: str = "settings") -> Settings:
        """Settings with these values, and defaults for the rest.

        Args:
            values: Values by name, typed or as flags write them.
            source: What the message calls them.

        Raises:
            InputError: Names every fault, and the nearest valid name.
        """
        try:
            return cls(**values)
        except ValidationError as error:
            raise InputError.collect(
                source, [explained(fault, [*cls.model_fields]) for fault in error.errors()]
            ) from None
