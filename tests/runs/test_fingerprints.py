"""What each step depends on: a setting, row or file that it does not read leaves it as it is."""

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from conftest import as_row, toy_examples, write_rows
from metakd import Run, Settings
from metakd.data.dataset import MultiDomainDataset, load_dataset
from metakd.methods import METHODS
from metakd.runs.fingerprints import MODEL_FILES, SETTING_STEPS
from metakd.utils.artifacts import FORMERLY, STEP_VERSIONS, digest_files

Fingerprints = Callable[..., dict[str, str]]
BY_TEACHER = {"meta_kd", "cross_domain", "hrkd", "metadistil", "soft_labels"}
BY_LABELS = {"fine_tuned", "fine_tuned_shared", "self_trained"}
STUDENTS = BY_TEACHER | BY_LABELS
FROM_TEACHER = {"teach"} | BY_TEACHER
FROM_WEIGHTS = {"weigh", "teach"} | BY_TEACHER
TRAINED = {"teach"} | STUDENTS
ALL = {"weigh", "teach"} | STUDENTS
MOVED: dict[str, tuple[Any, set[str]]] = {  # another value of each setting, and what changes with it
    "columns": ({"text": "review"}, set()),
    "encoding": ("latin-1", set()),
    "data_config": ("other", set()),
    "drop_leaks": (True, set()),
    "cut": ("60/20/20", set()),
    "skip_bad_rows": (True, set()),
    "drop_duplicates": (True, set()),
    "unlabelled": ("others.jsonl", set()),
    "unlabelled_rows": (True, set()),
    "max_unlabelled": (10, set()),
    "soft_labels": (False, set()),
    "probability_labels": (["a", "b"], set()),
    "label_columns": (["a", "b"], set()),
    "label_separator": (";", set()),
    "gold_weight": (0.25, FROM_TEACHER),
    "min_confidence": (0.5, BY_TEACHER),
    "max_share": (0.5, BY_TEACHER),
    "base": ("a copy", ALL),
    "student": ("layers=1", STUDENTS),
    "labels": ("shared", set()),  # here, domains have the same
    "class_weights": ("balanced", TRAINED),
    "student_init": ("base", BY_TEACHER),
    "max_length": (12, ALL),
    "long_texts": ("first", set()),
    "most_windows": (3, set()),
    "stride": (2, set()),
    "read_length": (64, set()),
    "method": ("hrkd", set()),
    "baseline": (False, set()),
    "baseline_learning_rate": (3e-4, BY_LABELS),
    "seed": (1, TRAINED),
    "alpha": (0.25, FROM_WEIGHTS),
    "weights": ("none", FROM_WEIGHTS),
    "domain_loss": ("none", FROM_TEACHER),
    "gamma1": (0.25, FROM_TEACHER),
    "heads": ("domain", FROM_TEACHER),
    "teacher": ("a copy", FROM_TEACHER),
    "teacher_labels": (["a", "b"], FROM_TEACHER),
    "teacher_epochs": (4, FROM_TEACHER),
    "teacher_learning_rate": (1e-4, FROM_TEACHER),
    "lora_rank": (2, FROM_TEACHER),
    "gradient_checkpointing": (True, set()),
    "gradient_accumulation": (2, FROM_TEACHER),
    "lora_targets": ("query", FROM_TEACHER),
    "teacher_tries": (3, FROM_TEACHER),
    "allow_weak_teacher": (True, set()),
    "terms": (["hidden", "prediction"], BY_TEACHER),
    "stages": ("joint", STUDENTS),
    "shared_epochs": (4, STUDENTS),
    "shared_learning_rate": (1e-4, BY_TEACHER),
    "match_epochs": (2, STUDENTS),
    "match_learning_rate": (1e-4, BY_TEACHER),
    "predict_epochs": (2, STUDENTS),
    "predict_learning_rate": (1e-4, STUDENTS),
    "windows": (1, STUDENTS),
    "crops": (1, STUDENTS),
    "teacher_windows": (1, FROM_WEIGHTS),
    "gamma2": (0.25, BY_TEACHER),
    "temperature": (2.0, BY_TEACHER),
    "expertise": ("hard", BY_TEACHER),
    "attention": ("relation", BY_TEACHER),
    "layer_map": ("1,4", STUDENTS),
    "start_layers": ("1,4", STUDENTS),
    "batch_size": (8, TRAINED),
    "warmup": (0.2, TRAINED),
    "weight_decay": (0.1, TRAINED),
    "dropout": (0.1, TRAINED),
    "attention_dropout": (0.1, TRAINED),
    "precision": ("bfloat16", ALL),
    "cache_budget": (1.0, set()),
    "track": ("none", set()),
    "keep_cache": (True, set()),
}
# the step in SETTING_STEPS that some of these stand for
BEHIND = {"weigh": "weigh", "teach": "teach", "meta_kd": "distill", "fine_tuned_shared": "baseline"}


@pytest.fixture(scope="module")
def data(toy_data: Path) -> MultiDomainDataset:
    return load_dataset(toy_data)


@pytest.fixture
def fingerprints(base: Path, data: MultiDomainDataset, tmp_path: Path) -> Fingerprints:
    """Fingerprints of the steps of a run, and of the student of books by each method."""
    few = {"base": str(base), "max_length": 16, "student": "layers=2", "stages": "two", "precision": "float32"}
    few |= {"unlabelled": "more.jsonl", "soft_labels": True}
    answered = dataclasses.replace(data.train[0], soft_label=((data.labels[0], 1.0),))
    with_answer = dataclasses.replace(data, splits=data.splits | {"train": [answered, *data.train[1:]]})

    def build(rows: MultiDomainDataset = with_answer, **settings: Any) -> dict[str, str]:
        run = Run(tmp_path, Settings.build(few | settings), rows)
        students = {method: run.fingerprints.distill(method, "books") for method in METHODS}
        return students | {"weigh": run.fingerprints.weigh, "teach": run.fingerprints.teach}

    return build


@pytest.fixture
def base_copy(base: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(base, tmp_path / "copy"))


def moved(before: dict[str, str], after: dict[str, str]) -> set[str]:
    return {name for name in before if before[name] != after[name]}


def moved_by(name: str, fingerprints: Fingerprints, base_copy: Path) -> set[str]:
    """What another value of a setting changes."""
    value = str(base_copy) if name in ("base", "teacher") else MOVED[name][0]
    before = {"teacher_labels": {"teacher": str(base_copy), "teacher_epochs": 3}, "lora_targets": {"lora_rank": 1}}.get(
        name, {}
    )
    after = {"teacher": {"teacher_epochs": 3}, "lora_rank": {"teacher_learning_rate": 5e-5}}.get(name, {})  # as before
    return moved(fingerprints(**before), fingerprints(**before, **after, **{name: value}))


def test_every_setting_is_classified() -> None:
    """A new setting needs a row in SETTING_STEPS, and one here: the steps that another value of it changes."""
    assert set(SETTING_STEPS) == set(MOVED) == set(Settings.model_fields)


@pytest.mark.parametrize("name", MOVED)
def test_settings_move_what_reads_them(fingerprints: Fingerprints, base_copy: Path, name: str) -> None:
    assert moved_by(name, fingerprints, base_copy) == MOVED[name][1]
    steps = SETTING_STEPS[name]
    assert {BEHIND[each] for each in MOVED[name][1] & set(BEHIND)} == (set() if isinstance(steps, str) else {*steps})


@pytest.mark.parametrize("name", [name for name, (_, steps) in MOVED.items() if steps])
def test_a_setting_that_is_left_out_is_noticed(
    fingerprints: Fingerprints, base_copy: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """The test above would fail for each setting that no fingerprint has."""
    monkeypatch.setitem(SETTING_STEPS, name, "left out")
    assert moved_by(name, fingerprints, base_copy) != MOVED[name][1]


def test_settings_that_are_new_move_nothing_with_what_runs_did_before(data: MultiDomainDataset, base: Path) -> None:
    """The names that each step has always depended on, and no more: folders of earlier versions go on."""
    settings = Settings.build({"base": str(base)} | FORMERLY)
    prints = Run(Path("nowhere"), settings, data).fingerprints
    values = {step: {*prints._values(step)} for step in ("weigh", "teach", "baseline")}
    always = {"base", "max_length", "precision"}
    optimisation = {"seed", "batch_size", "warmup", "weight_decay", "dropout", "attention_dropout"}
    teacher = {"domain_loss", "gamma1", "heads", "teacher_epochs", "teacher_learning_rate"}
    student = {"student", "stages", "shared_epochs", "match_epochs", "predict_epochs", "predict_learning_rate"}
    student |= {"windows", "crops", "layer_map", "start_layers", "baseline_learning_rate"}
    assert values["weigh"] == always | {"alpha", "weights"}
    assert values["teach"] == always | optimisation | teacher | {"alpha", "weights"}
    assert values["baseline"] == always | optimisation | student
    taught = {"student_init", "terms", "gamma2", "temperature", "expertise", "attention"}
    taught |= {"shared_learning_rate", "match_learning_rate"}
    assert {*prints._values("distill")} == values["teach"] | student - {"baseline_learning_rate"} | taught


def test_methods_of_the_same_settings_have_different_fingerprints(fingerprints: Fingerprints) -> None:
    assert len(set(fingerprints().values())) == len(METHODS) + 2


def test_students_that_start_from_the_teachers_head_depend_on_its_labels(
    fingerprints: Fingerprints, base_copy: Path
) -> None:
    same = {"base": str(base_copy), "teacher": str(base_copy), "teacher_epochs": 3}
    orders = [fingerprints(**same, teacher_labels=labels) for labels in (["a", "b"], ["b", "a"])]
    assert moved(*orders) == FROM_TEACHER | BY_LABELS


@pytest.mark.parametrize("step", ["weigh", "teach", "distill"])
def test_a_raised_version_moves_its_step_and_those_after_it(
    fingerprints: Fingerprints, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    before = fingerprints()
    monkeypatch.setitem(STEP_VERSIONS, step, STEP_VERSIONS[step] + 1)
    after = {"weigh": FROM_WEIGHTS, "teach": FROM_TEACHER - {"soft_labels"}, "distill": STUDENTS}
    assert moved(before, fingerprints()) == after[step]


@pytest.mark.parametrize(
    ("split", "changed"), [("train", ALL), ("dev", set[str]()), ("test", set[str]())], ids=["train", "dev", "test"]
)
def test_only_training_rows_move_steps(
    fingerprints: Fingerprints, data: MultiDomainDataset, split: str, changed: set[str]
) -> None:
    """Rows of dev and test are what results are computed from, so that these have another fingerprint all the same."""
    splits = data.splits | {split: [*data.splits[split], *toy_examples(1, 9, "new")]}
    more = dataclasses.replace(data, splits=splits)
    assert moved(fingerprints(data), fingerprints(more)) == changed
    assert more.fingerprint != data.fingerprint


def test_the_weight_of_gold_labels_counts_beside_others(fingerprints: Fingerprints, data: MultiDomainDataset) -> None:
    """Without soft labels it changes nothing, and runs go on whatever it is."""
    assert moved(fingerprints(data), fingerprints(data, gold_weight=0.25)) == set()


def test_settings_for_reading_act_through_the_rows(fingerprints: Fingerprints, tmp_path: Path) -> None:
    """Without the row of train that is also in test, a row less is learnt from."""
    rows = [as_row(e) for e in toy_examples(40, 0, "t")]
    write_rows(tmp_path / "leaky" / "train.jsonl", rows)
    write_rows(tmp_path / "leaky" / "test.jsonl", rows[:1])
    whole, dropped = (load_dataset(tmp_path / "leaky", drop_leaks=drop) for drop in (False, True))
    assert moved(fingerprints(whole), fingerprints(dropped)) == ALL


@pytest.mark.parametrize(
    "name",
    [
        *("merges.txt", "vocab.txt", "vocab.json", "spiece.model", "sentencepiece.bpe.model", "tokenizer.model"),
        *("added_tokens.json", "special_tokens_map.json", "tokenizer_config.json", "config.json", "entity_vocab.json"),
    ],
)
def test_files_of_a_tokenizer_count(base_copy: Path, name: str) -> None:
    """A chat template does not, as no model here reads it."""
    before = digest_files(base_copy, MODEL_FILES)
    (base_copy / "chat_template.jinja").write_text("new")
    assert digest_files(base_copy, MODEL_FILES) == before
    with (base_copy / name).open("a") as file:
        file.write(" ")
    assert digest_files(base_copy, MODEL_FILES) != before
