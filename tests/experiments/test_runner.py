"""Experiments on tiny models: every cell once, resumed, merged, compared."""

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from conftest import as_row, toy_examples, write_rows
from metakd.config.settings import Settings
from metakd.data.dataset import load_dataset
from metakd.data.samplers import updates_a_pass
from metakd.experiments import variants
from metakd.experiments.results_store import ResultsStore
from metakd.experiments.runner import experiment, report_name
from metakd.experiments.trial import Trial
from metakd.experiments.variants import EXPERIMENTS, Variant
from metakd.methods import METHODS
from metakd.methods.base import Setup
from metakd.models.hub import resolve
from metakd.models.loading import load_encoder
from metakd.models.meta_teacher import MetaTeacher
from metakd.runs.run import Run
from metakd.utils.errors import InputError

QUICK = {
    "max_length": 16,
    "student": "layers=2",
    "batch_size": 16,
    "teacher_epochs": 3,
    "teacher_learning_rate": 5e-3,
    "shared_epochs": 1,
    "shared_learning_rate": 5e-3,
    "stages": "two",
    "windows": 0,
    "predict_learning_rate": 5e-3,
    "allow_weak_teacher": True,
    "precision": "float32",
}


@pytest.fixture
def quick(checkpoint: Callable[..., Path]) -> Settings:
    return Settings(base=str(checkpoint()), **QUICK)


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "rows.jsonl").read_text(encoding="utf-8").splitlines()]


def test_main_scores_every_variant_and_teacher_and_goes_on_where_it_stopped(
    quick: Settings, toy_data: Path, tmp_path: Path
) -> None:
    data = load_dataset(toy_data)
    found = experiment("main", data, quick, tmp_path, seeds=[0])
    assert list(found["students"]) == [v.name for v in EXPERIMENTS["main"](quick)]
    assert list(found["teachers"]) == ["meta teacher", "mixture teacher", "single teachers", "multi-task teacher"]
    assert found["examples"] == {"books": 12, "kitchen": 12}
    rows = lines(tmp_path)
    assert len(rows) == len({row["key"] for row in rows}) == 13 + 4
    by_name = {row["variant"]: row for row in rows}
    share = sum(map(int, by_name["meta_kd"]["right"]["test"]["books"])) / 12
    assert found["students"]["meta_kd"]["domains"]["books"] == pytest.approx(share)
    checks = found["checks"]["meta_kd"]
    probed = ["domain by chance", "domain read off E(x)", "domain read off h"]
    assert list(checks) == [*probed, "effective share of t", "effective share of λ"]
    assert all(0 < value <= 1 for value in checks.values())
    assert "effective share of t" not in found["checks"]["mix_kd"]  # which weighs nothing
    assert "single_kd" not in found["checks"]  # several teachers
    assert by_name["single_kd"]["settings"]["shared_epochs"] == 2  # two domains: as many updates on one's own text
    page = (tmp_path / "main.md").read_text(encoding="utf-8")
    assert "| meta teacher |" in page
    assert "| domain read off h |" in page
    left = {path.name.partition("-")[0].removesuffix(".lock") for path in tmp_path.iterdir()}
    assert left == {"rows.jsonl", "main.json", "main.md", "instance_weights", "meta_teacher"} | {
        *("teacher_cache", "experiment", "run")  # their locks
    }
    assert not [path for path in tmp_path.glob("teacher_cache-*") if path.is_dir()]
    before = (tmp_path / "rows.jsonl").read_bytes()
    again = experiment("main", data, quick, tmp_path, seeds=[0])
    assert (tmp_path / "rows.jsonl").read_bytes() == before
    assert again["students"] == found["students"]


def test_trials_are_named_by_the_rate_that_they_try(quick: Settings) -> None:
    names = [v.name for v in variants.tune(quick) if v.tunes in ("shared", "fine_tuned")]
    assert names == [
        f"{line}, {passes} at {rate}"
        for line, rates in (("shared", (0.0002, 0.0004)), ("fine_tuned", (5e-05, 0.0001)))
        for passes in (2, 5)
        for rate in rates
    ]


def test_the_best_trial_on_dev_of_each_line_is_what_main_takes(
    quick: Settings, toy_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("shared_epochs", "shared_learning_rate", "baseline_learning_rate")
    candidates = [dict(zip(names, values, strict=True)) for values in ((1, 1e-9, 1e-9), (2, 5e-3, 5e-3))]
    monkeypatch.setattr(variants, "TRIALS", candidates)
    data = load_dataset(toy_data)
    tuned = experiment("tune", data, quick, tmp_path, seeds=[0], only=["meta_kd", "shared"])
    assert tuned["split"] == "dev"
    assert list(tuned["students"]) == [
        f"{line}, {t}" for line in ("meta_kd", "shared") for t in ("1 at 1e-09", "2 at 0.005")
    ]
    means = {name: found["mean"] for name, found in tuned["students"].items() if name.startswith("meta_kd")}
    assert tuned["best"]["meta_kd"]["trial"] == max(means, key=means.__getitem__)
    assert not {"against", "verdict", "minus_teacher"} & set(tuned)  # nothing is tested that is chosen by
    best = tuned["best"]["shared"]
    passes = 1 if "1 at" in best["trial"] else 2
    assert best["settings"] == candidates[passes - 1]
    with pytest.raises(InputError, match="no trial of meta_teacher_kd"):
        experiment("main", data, quick, tmp_path, seeds=[0], tuned=tmp_path / "tune-only-meta_kd+shared.json")
    with pytest.raises(InputError, match="trials are chosen from"):
        experiment("tune", data, quick, tmp_path, seeds=[0], only=["shared"], reference="shared, 1 at 1e-09")
    with pytest.raises(InputError, match="trials are chosen on dev"):
        experiment("tune", data, quick, tmp_path, seeds=[0], only=["shared"], split="test")
    with pytest.raises(InputError, match="tuned on other data"):
        experiment(
            "main", data.only("books"), quick, tmp_path, seeds=[0], tuned=tmp_path / "tune-only-meta_kd+shared.json"
        )
    with pytest.raises(InputError, match="chosen on dev"):
        experiment(
            "main", data, quick, tmp_path, seeds=[0], split="dev", tuned=tmp_path / "tune-only-meta_kd+shared.json"
        )
    with pytest.raises(InputError, match="for main and scarce"):
        experiment("ablation", data, quick, tmp_path, seeds=[0], tuned=tmp_path / "tune-only-meta_kd+shared.json")
    with pytest.raises(InputError, match="only = 'mine'"):
        experiment("main", data, quick, tmp_path, seeds=[0], only=["mine"])
    found = experiment(
        "main", data, quick, tmp_path, seeds=[0], only=["meta_kd"], tuned=tmp_path / "tune-only-meta_kd+shared.json"
    )
    assert found["split"] == "test"
    assert len(lines(tmp_path)) == 4 + 1  # the trials and their teacher: main had nothing to train
    (row,) = [row for row in lines(tmp_path) if row["variant"] == tuned["best"]["meta_kd"]["trial"]]
    assert found["students"]["meta_kd"]["domains"]["books"] == pytest.approx(
        sum(map(int, row["right"]["test"]["books"])) / 12
    )
    assert len(list(tmp_path.glob("meta_teacher-*"))) == 1


def test_a_torn_row_is_made_anew_and_rows_of_another_machine_are_taken_over(
    quick: Settings, toy_data: Path, tmp_path: Path
) -> None:
    data, one, two = load_dataset(toy_data), tmp_path / "one", tmp_path / "two"
    first = experiment("size", data, quick.model_copy(update={"base": quick.base}), one, seeds=[0])
    whole = (one / "rows.jsonl").read_text(encoding="utf-8")
    (one / "rows.jsonl").write_text(whole[:-20], encoding="utf-8")
    assert len(ResultsStore(one / "rows.jsonl").found) == len(first["students"]) - 1
    assert (one / "rows.jsonl").read_text(encoding="utf-8") == whole[:-20]  # who reads changes nothing
    again = experiment("size", data, quick, one, seeds=[0])
    assert again["students"] == first["students"]
    assert len(lines(one)) == len(first["students"])
    brought = [json.loads(line) for line in whole.splitlines()]
    brought[0]["environment"]["gpu"] = "another"
    other = write_rows(tmp_path / "other.jsonl", brought)
    merged = experiment("size", data, quick, two, seeds=[0], merge=[other])
    assert merged["students"] == first["students"]
    assert len(first["made_on"]) == 1
    assert merged["made_on"] == sorted(["another", *first["made_on"]])
    assert not list(two.glob("meta_teacher*"))  # nothing was trained for it


def test_the_ablation_moves_one_thing_at_a_time(quick: Settings) -> None:
    variants = EXPERIMENTS["ablation"](quick)
    assert len({v.name for v in variants}) == len(variants) == 1 + 4 + 2 + 4 + 6
    assert all(len(v.changes) == 2 for v in variants[1:])  # the method, and one thing
    for name in EXPERIMENTS:
        for variant in EXPERIMENTS[name](quick):
            Settings.build(quick.model_dump() | variant.changes)


def test_what_cannot_be_compared_is_refused_in_one_message(quick: Settings, tmp_path: Path) -> None:
    rows = [as_row(e) for e in toy_examples(16, 0, "t")]
    for split in ("train", "dev"):
        write_rows(tmp_path / f"{split}.jsonl", rows if split == "train" else rows[:3])
    data = load_dataset(tmp_path)
    with pytest.raises(InputError) as caught:
        experiment("main", data, quick, tmp_path / "out", seeds=[1, 1], reference="best")
    for part in ("seeds: name at least one", "reference = 'best'", "two rows of dev a domain", "kitchen"):
        assert part in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_finished_run_is_no_place_for_an_experiment(
    quick: Settings, toy_data: Path, finished_run: Path, tmp_path: Path
) -> None:
    place = Path(shutil.copytree(finished_run, tmp_path / "run"))
    with pytest.raises(InputError, match="holds a run, whose students would go"):
        experiment("main", load_dataset(toy_data), quick, place)
    assert (place / "students" / "books" / "model.safetensors").is_file()


@pytest.mark.parametrize(
    "line",
    [
        "[" * 100_000,
        '{"key": [], "variant": "a", "seed": 0, "right": {}, "environment": {"versions": {}, "commit": null}}',
        '{"key": "a", "variant": "a", "seed": 0, "right": {}, "environment": "x"}',
    ],
    ids=["deep", "key", "environment"],
)
def test_rubbish_is_not_merged(tmp_path: Path, line: str) -> None:
    (tmp_path / "rows.jsonl").write_text(line + "\n")
    with pytest.raises(InputError, match=r"rows\.jsonl, line 1: not the row of a cell"):
        ResultsStore(tmp_path / "rows.jsonl")


def test_scarce_labels_are_of_one_domain_or_of_all(quick: Settings, toy_data: Path, tmp_path: Path) -> None:
    """Each domain keeps a twentieth of its texts, at least one a label, the same ones whoever learns from them."""
    data = load_dataset(toy_data)

    def trial(experiment: str, name: str, seed: int = 0) -> Trial:
        variant = next(v for v in EXPERIMENTS[experiment](quick) if v.name == name)
        return Trial.of(variant, seed, quick, data, tmp_path)

    def rows(experiment: str, name: str) -> list[list[int]]:
        runs = [run for run, _ in trial(experiment, name).parts]
        return [[sum(e.domain == d for e in run.data.train) for d in data.domains] for run in runs]

    sizes = [sum(e.domain == d for e in data.train) for d in data.domains]
    few = rows("scarce-all-5", "meta_kd")[0]
    assert all(0 < n <= 0.1 * size for n, size in zip(few, sizes, strict=True))
    assert rows("scarce-5", "meta_kd") == rows("scarce-5", "fine_tuned") == [[few[0], sizes[1]], [sizes[0], few[1]]]
    assert rows("scarce-5", "multi_teacher") == rows("scarce-5", "meta_kd")
    other_teachers = trial("scarce-5", "multi_teacher").parts[0][0].other_teachers
    assert [len(teacher_run.data.train) for teacher_run in other_teachers] == [few[0], sizes[1]]
    assert rows("scarce-5", "single_kd") == [[few[0], 0], [0, few[1]]]
    assert rows("main", "meta_kd") == [sizes]
    assert len({trial("scarce-all-5", "fine_tuned", seed).students for seed in (0, 1)}) == 2


@pytest.mark.parametrize("more", [{}, {"match_epochs": 2, "predict_epochs": 3}, {"stages": "joint"}])
def test_every_student_makes_as_many_updates(
    quick: Settings, toy_data: Path, tmp_path: Path, more: dict[str, Any]
) -> None:
    """On domains of unequal size; rounded up to whole passes over its own domain's text."""
    data = load_dataset(toy_data).thinned(40, 0, "kitchen")
    settings = quick.model_copy(update=more)
    batches = {d: updates_a_pass(sum(e.domain == d for e in data.train), settings.batch_size) for d in data.domains}
    of_all = updates_a_pass(len(data.train), settings.batch_size)
    own = settings.predict_epochs + (settings.match_epochs if settings.stages == "two" else 0)
    for variant in EXPERIMENTS["main"](settings):
        trial = Trial.of(variant, 0, settings, data, tmp_path)
        for run, domains in trial.parts:
            shared = of_all if variant.scope in ("all", "several") else batches[domains[0]]
            for domain in domains:
                foreign = "foreign_text" in METHODS[run.settings.method].needs
                made = _updates(run, variant, of_all if foreign else batches[domain], shared)
                wanted = settings.shared_epochs * of_all + own * batches[domain]
                if variant.name in ("shared", "cross_domain"):  # whose own passes are on all text
                    wanted = (settings.shared_epochs + own) * of_all
                assert wanted <= made < wanted + batches[domain], (variant.name, domain)


def _updates(run: Run, variant: Variant, own: int, of_all: int) -> int:
    """Those of one student whose domain has `own` batches, in a run of `of_all`."""
    teacher = MetaTeacher(load_encoder(resolve(run.settings.base), run.data.labels), 2, "false", 0.5)
    student = load_encoder(resolve(run.settings.base), run.data.labels)
    student.config.num_hidden_layers = 2
    setup = Setup(run.settings, student, True, teacher, True, 2, own, of_all)
    stages = METHODS[run.settings.method].build(setup).stages()
    return sum(stage.epochs * (of_all if stage.shared else own) for stage in stages)


def test_trials_of_a_line_differ_and_lines_do_not_fall_together(
    quick: Settings, toy_data: Path, tmp_path: Path
) -> None:
    """Also of students who learn from one domain's text alone, and whatever the teachers' heads are."""
    data = load_dataset(toy_data)
    candidates = [Trial.of(variant, 0, quick, data, tmp_path) for variant in EXPERIMENTS["tune"](quick)]
    assert len({trial.students for trial in candidates}) == len(candidates)
    alone = next(trial for trial in candidates if trial.variant.name == "single_kd, 5 at 0.0002")
    assert alone.settings.shared_epochs == 5 * 2  # two domains of equal size
    headed = quick.model_copy(update={"heads": "domain"})
    lines = [Trial.of(variant, 0, headed, data, tmp_path) for variant in EXPERIMENTS["main"](headed)]
    assert len({trial.students for trial in lines}) == len(lines)


def test_the_teacher_of_an_unseen_domain_has_learnt_from_the_others_alone(
    quick: Settings, toy_data: Path, tmp_path: Path
) -> None:
    data = load_dataset(toy_data)
    found = experiment("unseen", data, quick, tmp_path, seeds=[0])
    assert set(found["teachers"]) == {"meta teacher (domain unseen)", "mixture teacher (domain unseen)"} | {
        *("meta teacher", "mixture teacher")
    }
    variant = next(v for v in EXPERIMENTS["unseen"](quick) if v.scope == "unseen")
    for run, own in Trial.of(variant, 0, quick, data, tmp_path).parts:
        (teacher_run,) = run.other_teachers
        assert run.teacher_domains == [d for d in data.domains if d not in own]
        assert not any(e.domain in own for rows in teacher_run.data.splits.values() for e in rows)
        places = run.features(run.data.train, run.tokenizer).column("domains").tolist()
        assert places == [-1 if e.domain in own else 0 for e in run.data.train]
        assert run.teacher_folder.is_dir()


def test_files_that_number_their_rows_alike_can_be_pooled(tmp_path: Path) -> None:
    for seed, split in enumerate(("train", "test")):
        write_rows(tmp_path / f"{split}.jsonl", [as_row(e) for e in toy_examples(40, seed, "row")])
    anew = load_dataset(tmp_path).resplit(0, 50)
    ids = [e.id for rows in anew.splits.values() for e in rows]
    assert len(set(ids)) == len(ids) == 80


def test_what_is_known_is_not_trained_again(quick: Settings, toy_data: Path, tmp_path: Path) -> None:
    """`size` has the students of three layers; the ablation asks for their teacher's row as well."""
    data = load_dataset(toy_data)
    settings = quick.model_copy(update={"student": "layers=3"})
    experiment("size", data, settings, tmp_path, seeds=[0], reference="3 layers")
    trial = Trial.of(EXPERIMENTS["ablation"](settings)[0], 0, settings, data, tmp_path)
    rows = ResultsStore(tmp_path / "rows.jsonl")
    assert trial.students in rows.found
    assert [row["variant"] for row in trial.rows(set(rows.found), ())] == ["meta teacher"]
    assert (tmp_path / "size-against-3 layers.md").is_file()


def test_classes_are_part_of_what_a_result_depends_on(quick: Settings, toy_data: Path, tmp_path: Path) -> None:
    """The same rows of one domain mean other models where another domain brings a third class."""
    alone = load_dataset(toy_data).only("books")
    wider = dataclasses.replace(alone, labels=[*alone.labels, "undecided"])
    marks = {Run(tmp_path, quick, data).teach_fingerprint for data in (alone, wider)}
    assert len(marks) == 2


def test_reports_of_many_lines_have_names_of_their_own(quick: Settings) -> None:
    lines = [variant.name for variant in EXPERIMENTS["ablation"](quick)]
    assert len({report_name("ablation", lines[:n], split) for n in (12, 13) for split in (None, "dev", "test")}) == 6
    assert report_name("ablation", lines, "dev", "meta_kd").endswith("-on-dev-against-meta_kd")
    assert len(report_name("ablation", lines, "dev")) < 200


def test_cutting_anew_keeps_every_row_and_the_shares(toy_data: Path) -> None:
    data = load_dataset(toy_data)
    anew = data.resplit(0, 40)
    ids = {split: {e.id for e in rows} for split, rows in anew.splits.items()}
    assert not ids["dev"]
    assert ids["train"] | ids["test"] == {e.id for rows in data.splits.values() for e in rows}
    assert len(ids["test"]) / sum(map(len, data.splits.values())) == pytest.approx(0.4, abs=0.05)
    alone = data.only("books")
    assert alone.domains == ["books"]
    assert alone.labels == data.labels
    assert {e.domain for rows in alone.splits.values() for e in rows} == {"books"}


def test_an_experiment_from_the_command_line(
    metakd: Callable[..., Any], checkpoint: Callable[..., Path], toy_data: Path, tmp_path: Path
) -> None:
    common = ("--data", toy_data, "--base", checkpoint(), "--output", tmp_path / "out", "--allow-weak-teacher")
    quick = ("--max-length", "16", "--teacher-epochs", "1", "--seeds", "0", "--cut", "60/0/40")
    code, out, err = metakd("experiment", "size", *common, *quick, "--split", "test", "--reference", "2 layers")
    assert code == 0, err
    assert (tmp_path / "out" / "size-on-test-against-2 layers.md").is_file()
    assert "size-on-test-against-2 layers.md" in out
    assert "| 4 layers |" in out
    assert "cell 1 of 4" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nothing",), "there are main, tune, ablation, size, unseen, scarce-5"),
        (("main", "--seed", "1"), "--seeds 0,1,2"),
        (("main", "--seeds", "a"), "--seeds a: expected numbers"),
        (("main", "--cut", "60/40"), "that make 100"),
        (("main", "--cut", "100/0/0"), "nothing to score on"),
        (("main", "--cut", "0/50/50"), "leaves nothing to learn from"),
        (("main", "--only", ""), "only = '': the experiment has meta_kd"),
        (("main", "--only", "shared,shared"), "only = 'shared': named twice"),
        (("size", "--method", "hrkd", "--student", "layers=2"), "--method, --student: an experiment decides this"),
        (("tune", "--shared-learning-rate", "1e-4"), "--shared-learning-rate: an experiment decides this"),
        (("main", "--tuned", "nowhere.json"), "--tuned nowhere.json: cannot be read"),
        (("main", "--split", "train"), "split = 'train': dev, to choose by, or test, to report"),
        (("main", "--shared-epochs", "0"), "hrkd: method = 'hrkd' cannot be used"),
        (("main", "--shared-epochs", "0"), "or leave that line out by --only"),
        (("main", "--merge", "nowhere.jsonl"), "--merge nowhere.jsonl: cannot be read"),
    ],
)
def test_bad_commands_say_what_to_write(
    metakd: Callable[..., Any],
    checkpoint: Callable[..., Path],
    toy_data: Path,
    tmp_path: Path,
    arguments: tuple[str, ...],
    message: str,
) -> None:
    common = ("--data", toy_data, "--base", checkpoint(), "--output", tmp_path / "out", "--max-length", "16")
    code, _, err = metakd("experiment", *arguments, *common)
    assert code == 2, err
    assert message in err
    assert "Traceback" not in err
