"""A teacher that is fine-tuned already: used as it is, matched by the names of its classes, checked before anything."""

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForSequenceClassification

from conftest import Command, encoded, passed, read_json, refused, save_checkpoint, save_tokenizer, taught
from metakd import Run, Settings
from metakd.data.tokenization import Collator
from metakd.models.class_head import rows_of_labels
from metakd.models.forward_passes import predict
from metakd.models.loading import load_classifier, load_fine_tuned
from metakd.models.meta_teacher import HEAD_FILE
from metakd.pipeline.distill import distill

WEIGHTS = "model.safetensors"


def weights(folder: Path) -> dict[str, Tensor]:
    return load_file(folder / WEIGHTS)


def same(one: Path, other: Path) -> bool:
    ours, theirs = weights(one), weights(other)
    return ours.keys() == theirs.keys() and all(ours[name].equal(theirs[name]) for name in ours)


def taught_by(teacher: Path, finished: Path, folder: Path, **settings: object) -> Run:
    """A run with the settings and the data of a finished one, and with the weights of `teacher` as its meta-teacher."""
    before = read_json(finished / "run.json")
    chosen = before["settings"] | {"teacher": str(teacher), "teacher_epochs": 0, "baseline": False} | settings
    run: Run = taught(Run.assemble(folder, Settings.build(chosen), Path(before["data"])).begin())
    return run


def plain(
    teacher: Path, folder: Path, names: Sequence[str] = ("negative", "positive"), rows: Sequence[int] = (0, 1)
) -> Path:
    """The classifier of a meta-teacher as others save theirs: without its h, with other rows and names of classes."""
    shutil.copytree(teacher, folder, ignore=shutil.ignore_patterns(HEAD_FILE, "manifest.json"))
    values = weights(folder)
    for name in ("classifier.weight", "classifier.bias"):
        values[name] = values[name][[*rows]].contiguous()
    save_file(values, folder / WEIGHTS, {"format": "pt"})
    change_config(folder, id2label={str(i): name for i, name in enumerate(names)}, label2id=None)
    return folder


def change_config(folder: Path, **values: Any) -> None:
    config = read_json(folder / "config.json") | values
    (folder / "config.json").write_text(json.dumps({k: v for k, v in config.items() if v is not None}))


@pytest.mark.parametrize("permuted", [False, True])
def test_a_teacher_that_is_handed_back_gives_the_same_students(
    finished_run: Path, tmp_path: Path, permuted: bool
) -> None:
    """To the bit; if the rows of its classification head are in another order, their names say so."""
    teacher = finished_run / "meta_teacher"
    if permuted:
        teacher = plain(teacher, tmp_path / "permuted", ("positive", "negative"), (1, 0))
        for name in (HEAD_FILE, "manifest.json"):
            shutil.copy(finished_run / "meta_teacher" / name, teacher)
        assert not same(teacher, finished_run / "meta_teacher")
    run = taught_by(teacher, finished_run, tmp_path / "run")
    assert same(run.folders.teacher, finished_run / "meta_teacher")
    assert same(distill(run, "books"), finished_run / "students" / "books")


def test_h_is_learnt_on_a_teacher_that_has_none(finished_run: Path, tmp_path: Path) -> None:
    """Its encoder and its classification head stay, and it is the base as well; the domain loss falls."""
    teacher = plain(finished_run / "meta_teacher", tmp_path / "plain")
    run = taught_by(teacher, finished_run, tmp_path / "run", base=str(teacher))
    assert same(run.folders.teacher, teacher)
    manifest = read_json(run.folders.teacher / "manifest.json")
    first, *_, last = [entry["loss_domain"] for entry in manifest["log"]]
    assert last < first / 2
    assert manifest["domain_probe"]["representation"] > 0.9
    head = load_file(run.folders.teacher / HEAD_FILE)
    again = taught_by(run.folders.teacher, finished_run, tmp_path / "again", base=str(teacher))
    assert all(head[name].equal(value) for name, value in load_file(again.folders.teacher / HEAD_FILE).items())
    assert read_json(again.folders.teacher / "manifest.json")["log"] == []


def test_without_a_domain_loss_nothing_is_learnt(finished_run: Path, tmp_path: Path) -> None:
    """And so a later run of that teacher does not take its h for one that was learnt."""
    run = taught_by(finished_run / "meta_teacher", finished_run, tmp_path / "run", domain_loss="none")
    assert read_json(run.folders.teacher / "manifest.json")["log"] == []
    again = taught_by(run.folders.teacher, finished_run, tmp_path / "again")
    assert read_json(again.folders.teacher / "manifest.json")["log"]


def test_it_is_fine_tuned_further_on_request(finished_run: Path, tmp_path: Path) -> None:
    """From where it is: a new head would have to learn the classes first."""
    teacher = plain(finished_run / "meta_teacher", tmp_path / "plain")
    run = taught_by(teacher, finished_run, tmp_path / "run", teacher_epochs=1, teacher_learning_rate=1e-5)
    assert not same(run.folders.teacher, teacher)
    largest = max((weights(run.folders.teacher)[name] - value).abs().max() for name, value in weights(teacher).items())
    assert largest < 1e-3


@pytest.mark.parametrize(
    ("classes", "labels", "rows"),
    [
        (["b", "a"], ["a", "b"], [1, 0]),
        (["c", "b", "a"], ["a", "b"], [2, 1]),
        (["NEGATIVE", "POSITIVE"], ["negative", "positive"], [0, 1]),
        (["LABEL_0", "LABEL_1"], ["0", "1"], [0, 1]),
        (["LABEL_0", "LABEL_1"], ["bad", "good"], None),
        (["LABEL_0", "LABEL_1", "LABEL_2"], ["1", "2"], None),
        (["LABEL_0", "LABEL_1", "b"], ["b", "LABEL_0"], [2, 0]),
        (["A", "a", "b"], ["a", "b"], [1, 2]),
        (["A", "a", "b"], ["a", "B"], None),
        (["a"], ["a", "b"], None),
    ],
)
def test_rows_are_matched_by_name(classes: list[str], labels: list[str], rows: list[int] | None) -> None:
    assert rows_of_labels(classes, labels) == rows


@pytest.mark.parametrize("kind", ["bert", "roberta", "distilbert", "electra", "deberta-v2"])
def test_of_more_classes_those_of_the_data_are_kept(kind: str, checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    """The probabilities are those of the whole head, divided by their sum."""
    folder = tmp_path / "classifier"
    config = {"id2label": {0: "c", 1: "b", 2: "a"}, "num_labels": 3}
    AutoModelForSequenceClassification.from_pretrained(checkpoint(kind), **config).save_pretrained(folder)
    save_tokenizer(folder)
    whole, kept = load_classifier(folder), load_fine_tuned(folder, ["a", "b"])
    everything, some = (predict(model, encoded(folder, 8), Collator(0)) for model in (whole, kept))
    expected = everything[:, [2, 1]] / everything[:, [2, 1]].sum(1, keepdim=True)
    torch.testing.assert_close(some, expected)
    kept.save_pretrained(tmp_path / "kept")
    save_tokenizer(tmp_path / "kept")
    again = load_classifier(tmp_path / "kept")
    assert again.config.id2label == {0: "a", 1: "b"}
    torch.testing.assert_close(predict(again, encoded(folder, 8), Collator(0)), some)


def run_by(metakd: Command, data: Path, output: Path, *flags: object) -> tuple[int, str, str]:
    small = ("--student", "layers=1", "--max-length", 16, "--shared-epochs", 1, "--no-baseline", "--windows", 0)
    return metakd("run", "--data", data, "--output", output, *small, *flags)


@pytest.mark.slow
def test_the_command_takes_it_as_base_and_scores_it_first(
    metakd: Command, finished_run: Path, toy_data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The names of its classes may be anything, if they are said."""
    teacher = plain(finished_run / "meta_teacher", tmp_path / "plain", ("LABEL_0", "LABEL_1"), (1, 0))
    flags = ("--teacher", teacher, "--teacher-labels", "positive,negative")
    passed(run_by(metakd, toy_data, tmp_path / "run", *flags))
    assert "--teacher, as it is: accuracy 1.000 on 16 rows of dev" in caplog.text
    assert "head is new" not in caplog.text
    settings = read_json(tmp_path / "run" / "run.json")["settings"]
    assert (settings["base"], settings["teacher_epochs"]) == (str(teacher), 0)
    results = read_json(tmp_path / "run" / "results.json")
    expected = read_json(finished_run / "results.json")["average"]["meta_teacher"]["accuracy"]
    assert results["average"]["meta_teacher"]["accuracy"] == expected
    assert "it teaches as it is" in (tmp_path / "run" / "report.html").read_text(encoding="utf-8")


def spoil(folder: Path, how: str) -> list[str]:
    """Change the classifier in `folder`, and return the flags that go with it."""
    match how:
        case "other classes":
            change_config(folder, id2label={"0": "ham", "1": "spam"})
        case "fewer classes":
            values = weights(folder)
            head = {name: values[name][:1].contiguous() for name in ("classifier.weight", "classifier.bias")}
            save_file(values | head, folder / WEIGHTS, {"format": "pt"})
            change_config(folder, id2label={"0": "positive"})
        case "a regression head":
            change_config(folder, problem_type="regression")
        case "several labels a text":
            change_config(folder, problem_type="multi_label_classification")
        case "no head":
            change_config(folder, architectures=["BertModel"])
        case "a head without its weights":
            values = weights(folder)
            save_file({n: v for n, v in values.items() if "classifier" not in n}, folder / WEIGHTS, {"format": "pt"})
        case "an adapter alone":
            (folder / "config.json").rename(folder / "adapter_config.json")
        case "an adapter beside it":
            (folder / "adapter_config.json").write_text("{}")
        case "another base":
            return ["--base", str(save_checkpoint(folder / "narrow", hidden_size=8))]
        case "a damaged h":
            (folder / HEAD_FILE).write_bytes(b"no tensors")
            taught = {"domains": ["books", "kitchen"], "domain_loss": "false", "gamma1": 0.5}
            (folder / "manifest.json").write_text(json.dumps({"h": taught}))
        case "no tokenizer":
            (folder / "tokenizer.json").unlink()
    return []


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("other classes", "its classes are ham, spam, but the data's labels are negative, positive; name its classes"),
        ("fewer classes", "its classes are positive, but the data's labels are negative, positive"),
        ("a regression head", "a model of the kind 'regression'"),
        ("several labels a text", "gives a text several labels, but the data one label; use --base instead"),
        ("no head", "not a text classifier; its config.json names ['BertModel']"),
        ("a head without its weights", "missing weights of its architecture"),
        ("an adapter alone", "an adapter, which is a part of a model; merge it"),
        ("an adapter beside it", "an adapter, which is a part of a model; merge it"),
        ("another base", "differ in hidden_size; leave --base out"),
        ("a damaged h", "domain_head.safetensors: cannot be read"),
        ("no tokenizer", "tokenizer"),
    ],
)
def test_a_teacher_that_cannot_be_used(
    metakd: Command, finished_run: Path, toy_data: Path, tmp_path: Path, how: str, message: str
) -> None:
    teacher = plain(finished_run / "meta_teacher", tmp_path / "plain")
    flags = spoil(teacher, how)
    said = refused(run_by(metakd, toy_data, tmp_path / "run", "--teacher", teacher, *flags))
    assert message in said
    assert not (tmp_path / "run" / "meta_teacher").exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--teacher-epochs", "0"], "--teacher-epochs 0: add --teacher"),
        (["--teacher-labels", "a,b"], "--teacher-labels: add --teacher"),
        (["--teacher", "x", "--heads", "domain"], "--heads domain: a fine-tuned --teacher has one classification head"),
        (["--teacher", "x/no-such-folder"], "x/no-such-folder"),
        (["--teacher", ""], "--teacher: is empty"),
        (["--teacher", "x", "--soft-labels"], "--soft-labels: --teacher stays as it is"),
    ],
)
def test_flags_that_do_not_fit_it(
    metakd: Command, toy_data: Path, tmp_path: Path, flags: list[str], message: str
) -> None:
    assert message in refused(run_by(metakd, toy_data, tmp_path / "run", *flags))
    assert not (tmp_path / "run").exists()


def test_too_many_names_of_classes(metakd: Command, finished_run: Path, toy_data: Path, tmp_path: Path) -> None:
    flags = ("--teacher", finished_run / "meta_teacher", "--teacher-labels", "a,b,c")
    said = refused(run_by(metakd, toy_data, tmp_path / "run", *flags))
    assert "--teacher-labels: 3 names, but the classification head" in said


def test_near_chance_it_says_what_to_check(metakd: Command, finished_run: Path, toy_data: Path, tmp_path: Path) -> None:
    """Here its classes have each other's names; the command that follows works as it stands."""
    teacher = plain(finished_run / "meta_teacher", tmp_path / "swapped", ("positive", "negative"))
    said = refused(run_by(metakd, toy_data, tmp_path / "run", "--teacher", teacher))
    assert "near chance" in said
    assert "if its classes have each other's names, put them right with --teacher-labels" in said
    assert "rm -r" not in said
    assert "--resume --teacher-epochs 3`" in said


def test_experiments_that_train_teachers_refuse_it_and_fit_checks_it(
    metakd: Command, finished_run: Path, toy_data: Path, tmp_path: Path
) -> None:
    flags = ("--data", toy_data, "--output", tmp_path / "out", "--max-length", 16)
    teacher = finished_run / "meta_teacher"
    said = refused(metakd("experiment", "main", *flags, "--student", "layers=1", "--teacher", teacher))
    assert "--teacher: an experiment sets this itself; leave it out" in said
    other = plain(teacher, tmp_path / "other", ("ham", "spam"))
    said = refused(metakd("fit", *flags, "--p95-ms", 5, "--teacher", other))
    assert "its classes are ham, spam, but the data's labels are negative, positive" in said
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())


@pytest.mark.slow
def test_other_domain_losses_teach_h_again(finished_run: Path, tmp_path: Path) -> None:
    """What was learnt by one kind of L_dom, or with another weight, is not taken for what another would teach."""
    teacher = finished_run / "meta_teacher"
    for number, changed in enumerate(({"gamma1": 0.25}, {"domain_loss": "permuted"})):
        run = taught_by(teacher, finished_run, tmp_path / str(number), **changed)
        assert read_json(run.folders.teacher / "manifest.json")["log"]


def test_a_teacher_inside_the_folder_that_is_replaced(
    metakd: Command, run_copy: Path, toy_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(run_copy.parent))
    teacher = run_copy / "meta_teacher"
    for place in (teacher, f"~/{run_copy.name}/meta_teacher"):
        message = refused(run_by(metakd, toy_data, run_copy, "--overwrite", "--teacher", place))
        assert "is in --output, which is replaced" in message
    assert (teacher / WEIGHTS).is_file()


def test_a_new_teacher_overrules_what_depended_on_the_old_one(
    metakd: Command, finished_run: Path, tmp_path: Path
) -> None:
    """Epochs and base of a settings file, or of a folder's begun run, were meant for the teacher of before."""
    teacher, settings = finished_run / "meta_teacher", tmp_path / "s.yaml"
    settings.write_text("teacher_epochs: 7\nbase: nowhere\nmax_length: 16\nstudent: layers=1\nbaseline: false\n")
    flags = ("--data", read_json(finished_run / "run.json")["data"], "--config", settings, "--output", tmp_path / "run")
    passed(metakd("weigh", *flags, "--teacher", teacher))
    begun = read_json(tmp_path / "run" / "run.json")["settings"]
    assert (begun["base"], begun["teacher_epochs"], begun["max_length"]) == (str(teacher), 0, 16)
