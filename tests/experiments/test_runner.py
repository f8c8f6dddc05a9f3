"""Experiments on tiny models: every trial once, resumed, merged, compared."""

import dataclasses
import json
from collections.abc import Callable
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import pytest

from conftest import Command, as_row, passed, read_rows, refused, toy_examples, write_rows
from metakd.config.settings import Settings
from metakd.data.dataset import MultiDomainDataset, load_dataset
from metakd.data.samplers import updates_per_epoch
from metakd.experiments import variants
from metakd.experiments.results_store import ResultsStore
from metakd.experiments.runner import experiment, report_name
from metakd.experiments.trial import Trial
from metakd.experiments.variants import EXPERIMENTS
from metakd.methods import METHODS
from metakd.methods.base import Setup
from metakd.models.hub import resolve
from metakd.models.loading import load_encoder
from metakd.models.meta_teacher import MetaTeacher
from metakd.runs.run import Run
from metakd.utils.errors import InputError

Experiment = Callable[..., dict[str, Any]]
QUICK: dict[str, Any] = {"stages": "two", "windows": 0, "allow_weak_teacher": True, "precision": "float32"}
QUICK |= {"max_length": 16, "student": "layers=2", "batch_size": 16, "teacher_epochs": 3, "shared_epochs": 1}
QUICK["teacher_tries"] = 1
QUICK |= dict.fromkeys(("teacher_learning_rate", "shared_learning_rate", "predict_learning_rate"), 5e-3)


@pytest.fixture
def quick(base: Path) -> Settings:
    return Settings(base=str(base), **QUICK)


@pytest.fixture
def data(toy_data: Path) -> MultiDomainDataset:
    return load_dataset(toy_data)


@pytest.fixture
def run(quick: Settings, data: MultiDomainDataset, tmp_path: Path) -> Experiment:
    """run('main') -> the results of the experiment on the toy data, by one seed, in tmp_path."""
    return partial(experiment, data=data, settings=quick, folder=tmp_path, seeds=[0])


def shares(row: dict[str, Any]) -> dict[str, float]:
    return {domain: sum(map(int, digits)) / len(digits) for domain, digits in row["right"]["test"].items()}


@pytest.mark.slow
def test_main_scores_every_variant_and_teacher_and_goes_on(run: Experiment, quick: Settings, tmp_path: Path) -> None:
    results = run("main")
    assert list(results["students"]) == [v.name for v in EXPERIMENTS["main"](quick)]
    assert list(results["teachers"]) == ["meta teacher", "mixture teacher", "single teachers", "multi-task teacher"]
    assert results["examples"] == {"books": 12, "kitchen": 12}
    rows = read_rows(tmp_path / "rows.jsonl")
    assert len(rows) == len({row["key"] for row in rows}) == 13 + 4
    by_name = {row["variant"]: row for row in rows}
    assert results["students"]["meta_kd"]["domains"] == pytest.approx(shares(by_name["meta_kd"]))
    checks = results["checks"]["meta_kd"]
    probes = ["domain by chance", "domain read off E(x)", "domain read off h"]
    assert list(checks) == [*probes, "effective share of t", "effective share of λ"]
    assert all(0 < value <= 1 for value in checks.values())
    assert "effective share of t" not in results["checks"]["mix_kd"]  # which weighs nothing
    assert "single_kd" not in results["checks"]  # several teachers
    assert by_name["single_kd"]["settings"]["shared_epochs"] == 2  # two domains: as many updates on the text of one
    for part in ("| meta teacher |", "| domain read off h |"):
        assert part in (tmp_path / "main.md").read_text(encoding="utf-8")
    kept = {path.name.partition("-")[0].removesuffix(".lock") for path in tmp_path.iterdir()}
    locks = {"teacher_cache", "experiment", "run"}
    assert kept == {"rows.jsonl", "main.json", "main.md", "instance_weights", "meta_teacher"} | locks
    assert not [path for path in tmp_path.glob("teacher_cache-*") if path.is_dir()]
    before = (tmp_path / "rows.jsonl").read_bytes()
    assert run("main")["students"] == results["students"]
    assert (tmp_path / "rows.jsonl").read_bytes() == before


def test_candidates_are_named_by_the_rate_that_they_try(quick: Settings) -> None:
    names = [v.name for v in variants.tune(quick) if v.tunes in ("shared", "fine_tuned")]
    assert names == [
        f"{variant}, {epochs} at {rate}"
        for variant, rates in (("shared", (0.0002, 0.0004)), ("fine_tuned", (5e-05, 0.0001)))
        for epochs in (2, 5)
        for rate in rates
    ]


@pytest.mark.slow
def test_main_takes_what_is_best_on_dev(
    run: Experiment, data: MultiDomainDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("shared_epochs", "shared_learning_rate", "baseline_learning_rate")
    grid = [dict(zip(names, values, strict=True)) for values in ((1, 1e-9, 1e-9), (2, 5e-3, 5e-3))]
    monkeypatch.setattr(variants, "TUNING_GRID", grid)
    tuned = run("tune", only=["meta_kd", "shared"])
    assert tuned["split"] == "dev"
    candidates = {name: [f"{name}, 1 at 1e-09", f"{name}, 2 at 0.005"] for name in ("meta_kd", "shared")}
    assert list(tuned["students"]) == [*chain(*candidates.values())]
    assert not {"against", "verdict", "minus_teacher"} & set(tuned)  # nothing is tested that is chosen by
    for variant, best in tuned["best"].items():
        names = candidates[variant]
        chosen = max(names, key=lambda name: tuned["students"][name]["mean"])
        assert best == {"chosen": chosen, "settings": grid[names.index(chosen)], "candidates": names}
    path = tmp_path / "tune-only-meta_kd+shared.json"
    bad = {"best": {"meta_kd": {"settings": {"shared_epochs": "many"}}}, "data_fingerprint": "", "split": "dev"}
    path.with_name("bad.json").write_text(json.dumps(bad))
    for name, options, message in (
        ("main", {"tuned": path}, "no settings for meta_teacher_kd"),
        ("tune", {"only": ["shared"], "reference": "shared, 1 at 1e-09"}, "has no reference"),
        ("tune", {"only": ["shared"], "split": "test"}, "chooses on dev"),
        ("main", {"data": data.only("books"), "tuned": path}, "tuned on other data"),
        ("main", {"split": "dev", "tuned": path}, "chosen on dev"),
        ("ablation", {"tuned": path}, "only for main and scarce"),
        ("main", {"only": ["mine"]}, "only = 'mine'"),
        ("main", {"tuned": path.with_name("bad.json")}, "shared_epochs = 'many'"),
    ):
        with pytest.raises(InputError, match=message):
            run(name, **options)
    results = run("main", only=["meta_kd"], tuned=path)
    assert results["split"] == "test"
    assert results["tuned"] == {"meta_kd": tuned["best"]["meta_kd"]["settings"]}
    rows = read_rows(tmp_path / "rows.jsonl")
    assert len(rows) == 4 + 1  # the candidates and their teacher: main had nothing to train
    (row,) = [row for row in rows if row["variant"] == tuned["best"]["meta_kd"]["chosen"]]
    assert results["students"]["meta_kd"]["domains"] == pytest.approx(shares(row))
    assert len(list(tmp_path.glob("meta_teacher-*"))) == 1


@pytest.mark.slow
def test_a_torn_row_is_made_again_and_rows_of_another_machine_are_merged(run: Experiment, tmp_path: Path) -> None:
    first, rows, two = run("size"), tmp_path / "rows.jsonl", tmp_path / "two"
    whole = rows.read_text(encoding="utf-8")
    rows.write_text(whole[:-20], encoding="utf-8")
    assert len(ResultsStore(rows).rows) == len(first["students"]) - 1
    assert rows.read_text(encoding="utf-8") == whole[:-20]  # reading changes nothing
    assert run("size")["students"] == first["students"]
    theirs = read_rows(rows)
    assert len(theirs) == len(first["students"])
    theirs[0]["environment"]["gpu"] = "another"
    merged = run("size", folder=two, merge=[write_rows(tmp_path / "other.jsonl", theirs)])
    assert merged["students"] == first["students"]
    assert len(first["made_on"]) == 1
    assert merged["made_on"] == sorted(["another", *first["made_on"]])
    assert not list(two.glob("meta_teacher*"))  # nothing was trained for it


def test_the_ablation_moves_one_thing_at_a_time(quick: Settings) -> None:
    ablation = EXPERIMENTS["ablation"](quick)
    assert len({v.name for v in ablation}) == len(ablation) == 1 + 4 + 2 + 2 + 6
    assert all(len(v.changes) == 2 for v in ablation[1:])  # the method, and one thing
    small = EXPERIMENTS["small"](quick)
    assert len(small) == 10
    assert all(len(v.changes) == 2 for v in small[1:])
    paper = quick.model_copy(update={"student": str(quick.base), "match_epochs": 1})  # cut from nothing, in two stages
    left_out = {"lower layers", "layers of the base", "prediction only"}
    assert {v.name for v in EXPERIMENTS["small"](paper)} == {v.name for v in small} - left_out
    assert "temperature 2" not in [v.name for v in EXPERIMENTS["small"](quick.model_copy(update={"temperature": 2.0}))]
    for name in EXPERIMENTS:
        for variant in EXPERIMENTS[name](quick):
            Settings.build(quick.model_dump() | variant.changes)
    given = quick.model_copy(update={"unlabelled": "more.jsonl"})
    chosen = [v for v in EXPERIMENTS["unlabelled"](given) if v not in EXPERIMENTS["unlabelled"](quick)]
    assert [Settings.build(given.model_dump() | v.changes).max_share for v in chosen] == [1, 0.5]


def test_what_cannot_be_compared_is_refused_in_one_message(quick: Settings, tmp_path: Path) -> None:
    rows = [as_row(e) for e in toy_examples(16, 0, "t")]
    write_rows(tmp_path / "train.jsonl", rows)
    write_rows(tmp_path / "dev.jsonl", rows[:3])
    data = load_dataset(tmp_path)
    with pytest.raises(InputError) as caught:
        experiment("main", data, quick, tmp_path / "out", seeds=[1, 1], reference="best")
    for part in ("seeds: name at least one", "reference = 'best'", "two rows of dev per domain", "kitchen"):
        assert part in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_finished_run_is_no_place_for_an_experiment(run: Experiment, run_copy: Path) -> None:
    with pytest.raises(InputError, match="has a run, whose students would be deleted"):
        run("main", folder=run_copy)
    assert (run_copy / "students" / "books" / "model.safetensors").is_file()


ROW = {"key": "a", "variant": "a", "seed": 0, "right": {}, "environment": {"versions": {}, "commit": None}}


@pytest.mark.parametrize(
    "change", [{}, {"key": []}, {"environment": "x"}, {"variant": None}, {"right": {"dev": {"books": "012"}}}]
)
def test_rubbish_is_not_merged(tmp_path: Path, change: dict[str, Any]) -> None:
    """Brackets too deep to read, and rows with a value of another kind or (None) without it."""
    row = {key: value for key, value in (ROW | change).items() if value is not None}
    (tmp_path / "rows.jsonl").write_text((json.dumps(row) if change else "[" * 100_000) + "\n")
    with pytest.raises(InputError, match=r"rows\.jsonl, line 1: not a row of an experiment"):
        ResultsStore(tmp_path / "rows.jsonl")


def test_text_without_labels_is_what_variants_differ_in(
    run: Experiment, quick: Settings, data: MultiDomainDataset, tmp_path: Path
) -> None:
    """With a fifth of the labels, the rest is text without labels: all, a quarter or none of it is read."""
    with pytest.raises(InputError, match="no text without labels; add unlabelled, or choose unlabelled-20"):
        run("unlabelled")
    trials = {v.name: Trial.of(v, 0, quick, data, tmp_path) for v in EXPERIMENTS["unlabelled-20"](quick)}
    read = {name: len(trial.parts[0][0].data.unlabelled) for name, trial in trials.items()}
    labelled = {len(trial.parts[0][0].data.train) for trial in trials.values()}
    assert len(labelled) == 1
    rest = len(data.train) - labelled.pop()
    assert list(read.values()) == [rest, sum(n * 25 // 100 for n in by_domain_sizes(trials["meta_kd"])), 0, rest, rest]
    results = run("unlabelled-20", only=["meta_kd", "self_trained"])
    assert set(results["students"]) == {"meta_kd", "self_trained"}
    assert not list(tmp_path.glob("*shared_student-*"))


def by_domain_sizes(trial: Trial) -> list[int]:
    unlabelled = trial.parts[0][0].data.unlabelled
    return [sum(e.domain == domain for e in unlabelled) for domain in {e.domain for e in unlabelled}]


def test_scarce_labels_are_of_one_domain_or_of_all(quick: Settings, data: MultiDomainDataset, tmp_path: Path) -> None:
    """Each domain keeps a twentieth of its texts, at least one a label, the same ones for all who learn from them."""

    def trial(experiment: str, name: str, seed: int = 0) -> Trial:
        variant = next(v for v in EXPERIMENTS[experiment](quick) if v.name == name)
        return Trial.of(variant, seed, quick, data, tmp_path)

    def sizes(experiment: str, name: str) -> list[list[int]]:
        runs = [run for run, _ in trial(experiment, name).parts]
        return [[sum(e.domain == d for e in run.data.train) for d in data.domains] for run in runs]

    whole = [sum(e.domain == d for e in data.train) for d in data.domains]
    few = sizes("scarce-all-5", "meta_kd")[0]
    assert all(0 < n <= 0.1 * size for n, size in zip(few, whole, strict=True))
    assert sizes("scarce-5", "meta_kd") == sizes("scarce-5", "fine_tuned") == [[few[0], whole[1]], [whole[0], few[1]]]
    assert sizes("scarce-5", "multi_teacher") == sizes("scarce-5", "meta_kd")
    other_teachers = trial("scarce-5", "multi_teacher").parts[0][0].other_teachers
    assert [len(teacher_run.data.train) for teacher_run in other_teachers] == [few[0], whole[1]]
    assert sizes("scarce-5", "single_kd") == [[few[0], 0], [0, few[1]]]
    assert sizes("main", "meta_kd") == [whole]
    assert len({trial("scarce-all-5", "fine_tuned", seed).students for seed in (0, 1)}) == 2


@pytest.mark.parametrize("more", [{}, {"match_epochs": 2, "predict_epochs": 3}, {"stages": "joint"}])
def test_all_make_as_many_updates(quick: Settings, toy_data: Path, tmp_path: Path, more: dict[str, Any]) -> None:
    """Every student, on domains of unequal size; rounded up to whole epochs over its domain's text."""
    data = load_dataset(toy_data).thinned(40, 0, "kitchen")
    settings = quick.model_copy(update=more)
    sizes = {d: sum(e.domain == d for e in data.train) for d in data.domains}
    batches = {d: updates_per_epoch(size, settings.batch_size) for d, size in sizes.items()}
    of_all = updates_per_epoch(len(data.train), settings.batch_size)
    epochs = settings.predict_epochs + (settings.match_epochs if settings.stages == "two" else 0)
    for variant in EXPERIMENTS["main"](settings):
        trial = Trial.of(variant, 0, settings, data, tmp_path)
        for run, domains in trial.parts:
            shared = of_all if variant.scope in ("all", "several") else batches[domains[0]]
            for domain in domains:
                foreign = "foreign_text" in METHODS[run.settings.method].needs
                updates = _updates(run, of_all if foreign else batches[domain], shared)
                expected = settings.shared_epochs * of_all + epochs * batches[domain]
                if variant.name in ("shared", "cross_domain"):  # whose domain epochs are on all text
                    expected = (settings.shared_epochs + epochs) * of_all
                assert expected <= updates < expected + batches[domain], (variant.name, domain)


def test_of_scarce_text_a_student_of_one_domain_makes_as_many_updates(
    quick: Settings, data: MultiDomainDataset, tmp_path: Path
) -> None:
    """As others make on all text of the other domains beside it."""
    trials = {v.name: Trial.of(v, 0, quick, data, tmp_path) for v in EXPERIMENTS["scarce-20"](quick)}
    for name in ("single_kd", "logit_kd"):
        for (run, [domain]), (beside, others) in zip(trials[name].parts, trials["meta_kd"].parts, strict=True):
            assert others == [domain]
            of_domain, of_all = (updates_per_epoch(len(r.data.train), quick.batch_size) for r in (run, beside))
            assert of_domain < of_all
            most = _updates(beside, of_domain, of_all) + of_domain
            assert most - of_domain <= _updates(run, of_domain, of_domain) < most


def _updates(run: Run, of_domain: int, of_all: int) -> int:
    """Those of one student whose domain has `of_domain` batches, in a run of `of_all`."""
    teacher = MetaTeacher(load_encoder(resolve(run.settings.base), run.data.labels), 2, "false", 0.5)
    student = load_encoder(resolve(run.settings.base), run.data.labels)
    student.config.num_hidden_layers = 2
    rows = (batches * run.settings.batch_size for batches in (of_domain, of_all))
    setup = Setup(run.settings, student, True, teacher, True, 2, *rows)
    stages = METHODS[run.settings.method].build(setup).stages()
    return sum(stage.epochs * (of_all if stage.shared else of_domain) for stage in stages)


def test_variants_and_their_candidates_all_differ(quick: Settings, data: MultiDomainDataset, tmp_path: Path) -> None:
    """Also of students who learn from one domain's text alone, and whatever the teachers' heads are."""
    headed = quick.model_copy(update={"heads": "domain"})
    for name, settings in (("tune", quick), ("main", headed)):
        trials = {v.name: Trial.of(v, 0, settings, data, tmp_path) for v in EXPERIMENTS[name](settings)}
        assert len({trial.students for trial in trials.values()}) == len(trials) == len(EXPERIMENTS[name](settings))
        if name == "tune":  # two domains of equal size
            assert trials["single_kd, 5 at 0.0002"].settings.shared_epochs == 5 * 2


@pytest.mark.slow
def test_a_teacher_learns_from_other_domains_alone(
    run: Experiment, quick: Settings, data: MultiDomainDataset, tmp_path: Path
) -> None:
    results = run("unseen")
    teachers = {"meta teacher", "mixture teacher"}
    assert set(results["teachers"]) == teachers | {f"{name} (domain unseen)" for name in teachers}
    variant = next(v for v in EXPERIMENTS["unseen"](quick) if v.scope == "unseen")
    for part, domains in Trial.of(variant, 0, quick, data, tmp_path).parts:
        (teacher_run,) = part.other_teachers
        assert part.teacher_domains == [d for d in data.domains if d not in domains]
        assert not any(e.domain in domains for rows in teacher_run.data.splits.values() for e in rows)
        places = part.features.encode(part.data.train, part.features.tokenizer).column("domains").tolist()
        assert places == [-1 if e.domain in domains else 0 for e in part.data.train]
        assert part.folders.teacher.is_dir()


def test_files_that_number_their_rows_alike_can_be_pooled(tmp_path: Path) -> None:
    for seed, split in enumerate(("train", "test")):
        write_rows(tmp_path / f"{split}.jsonl", [as_row(e) for e in toy_examples(40, seed, "row")])
    ids = [e.id for rows in load_dataset(tmp_path).resplit(0, 50).splits.values() for e in rows]
    assert len(set(ids)) == len(ids) == 80


@pytest.mark.slow
def test_what_is_known_is_not_trained_again(quick: Settings, data: MultiDomainDataset, tmp_path: Path) -> None:
    """`size` has the students of three layers; the ablation needs their teacher's row as well."""
    settings = quick.model_copy(update={"student": "layers=3"})
    experiment("size", data, settings, tmp_path, seeds=[0], reference="3 layers")
    trial = Trial.of(EXPERIMENTS["ablation"](settings)[0], 0, settings, data, tmp_path)
    known = {*ResultsStore(tmp_path / "rows.jsonl").rows}
    assert trial.students in known
    assert [row["variant"] for row in trial.rows(known, ())] == ["meta teacher"]
    assert (tmp_path / "size-against-3 layers.md").is_file()


def test_results_depend_on_what_is_scored(quick: Settings, data: MultiDomainDataset, tmp_path: Path) -> None:
    """A row more of test leaves teacher and students as they are, and has them scored again."""
    splits = data.splits | {"test": [*data.splits["test"], *toy_examples(1, 9, "new")]}
    more = dataclasses.replace(data, splits=splits)
    before, after = (Trial.of(EXPERIMENTS["main"](quick)[0], 0, quick, rows, tmp_path) for rows in (data, more))
    assert not before.keys & after.keys
    (one, _), (two, _) = before.parts[0], after.parts[0]
    assert one.folders.teacher == two.folders.teacher
    assert one.folders.student("meta_kd", "books") == two.folders.student("meta_kd", "books")


def test_results_depend_on_classes(quick: Settings, data: MultiDomainDataset, tmp_path: Path) -> None:
    """The same rows of one domain mean other models where another domain brings a third class."""
    alone = data.only("books")
    wider = dataclasses.replace(alone, labels=[*alone.labels, "undecided"])
    assert len({Run(tmp_path, quick, d).fingerprints.teach for d in (alone, wider)}) == 2


def test_reports_of_many_variants_have_different_names(quick: Settings) -> None:
    names = [variant.name for variant in EXPERIMENTS["ablation"](quick)]
    assert len({report_name("ablation", names[:n], split) for n in (12, 13) for split in (None, "dev", "test")}) == 6
    assert report_name("ablation", names, "dev", "meta_kd").endswith("-on-dev-against-meta_kd")
    assert len(report_name("ablation", names, "dev")) < 200


def test_cutting_again_keeps_every_row_and_the_shares(data: MultiDomainDataset) -> None:
    ids = {split: {e.id for e in rows} for split, rows in data.resplit(0, 40).splits.items()}
    assert not ids["dev"]
    assert ids["train"] | ids["test"] == {e.id for rows in data.splits.values() for e in rows}
    assert len(ids["test"]) / sum(map(len, data.splits.values())) == pytest.approx(0.4, abs=0.05)
    alone = data.only("books")
    assert (alone.domains, alone.labels) == (["books"], data.labels)
    assert {e.domain for rows in alone.splits.values() for e in rows} == {"books"}


@pytest.fixture
def run_command(metakd: Command, base: Path, toy_data: Path, tmp_path: Path) -> Command:
    """run_command('size', '--seeds', '0') -> (exit code, output, errors) of `metakd experiment` on the toy data."""
    shared = ("--data", toy_data, "--base", base, "--output", tmp_path / "out", "--max-length", "16")
    return lambda *arguments: metakd("experiment", *arguments, *shared)


def test_tuning_says_that_it_tries_fewer_epochs_than_few_texts_get(
    run_command: Command, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("metakd.config.few_texts.FEW_TEXTS", 4_000)
    refused(run_command("tune", "--only", "none of them"))
    assert "tune tries up to 5 shared epochs, fewer than the" in caplog.text


@pytest.mark.slow
def test_the_command_prints_the_report_and_its_files(run_command: Command, tmp_path: Path) -> None:
    short = ("--allow-weak-teacher", "--teacher-epochs", "1", "--seeds", "0", "--cut", "60/0/40")
    out, err = passed(run_command("size", *short, "--split", "test", "--reference", "2 layers"))
    assert (tmp_path / "out" / "size-on-test-against-2 layers.md").is_file()
    assert "size-on-test-against-2 layers.md" in out
    assert "| 4 layers |" in out
    assert "trial 1 of 4" in err
    assert "of 180 texts" in err  # --cut is the command's, not the setting for one file: of all 296, 60 percent


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nothing",), "choose one of main, tune, ablation, size, small, unseen, scarce-5"),
        (("main", "--seed", "1"), "--seeds 0,1,2"),
        (("main", "--seeds", "a"), "--seeds a: expected numbers"),
        (("main", "--cut", "60/40"), "that sum to 100"),
        (("main", "--cut", "100/0/0"), "no rows to score on"),
        (("main", "--cut", "0/50/50"), "leaves nothing to train on"),
        (("main", "--only", ""), "--only = '': the experiment has meta_kd"),
        (("main", "--only", "shared,shared"), "--only = 'shared': named twice"),
        (("size", "--method", "hrkd", "--student", "layers=2"), "--method, --student: an experiment sets this"),
        (("tune", "--shared-learning-rate", "1e-4"), "--shared-learning-rate: an experiment sets this"),
        (("main", "--tuned", "nowhere.json"), "--tuned nowhere.json: cannot be read"),
        (("main", "--tuned", "nowhere.json", "--shared-epochs", "9"), "--shared-epochs: an experiment sets this"),
        (("main", "--split", "train"), "--split = 'train': use dev to choose, or test to report"),
        (("main", "--shared-epochs", "0"), "hrkd: --method = 'hrkd' cannot be used"),
        (("main", "--shared-epochs", "0"), "or leave that variant out with --only"),
        (("main", "--merge", "nowhere.jsonl"), "--merge nowhere.jsonl: cannot be read"),
    ],
)
def test_bad_commands_are_refused_with_advice(run_command: Command, arguments: tuple[str, ...], message: str) -> None:
    assert message in refused(run_command(*arguments))
