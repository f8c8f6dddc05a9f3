"""The meta-teacher: what comes before it, each domain loss, what its manifest holds, and when students refuse it."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from conftest import NewRun, open_run, read_json, read_rows, taught, toy_examples
from metakd import CheckError, InputError
from metakd.models.forward_passes import embed
from metakd.models.meta_teacher import MetaTeacher
from metakd.pipeline.checks import near_chance
from metakd.pipeline.distill import distill
from metakd.pipeline.teach import _weights, teach
from metakd.prototypes import prototype_scores, prototypes
from metakd.runs.starts import load_base


def test_steps_out_of_order_name_the_missing_one(toy_run: NewRun) -> None:
    run = toy_run()
    with pytest.raises(InputError, match="metakd weigh"):
        teach(run)
    with pytest.raises(InputError, match="metakd teach"):
        distill(run, "books")
    assert {p.name for p in run.folder.iterdir()} <= {"run.json", "run.lock", "students", "meta_teacher"}
    assert not list(run.folder.rglob("manifest.json"))


@pytest.mark.parametrize("loss", ["permuted", "none"])
def test_every_domain_loss_runs_through(toy_run: NewRun, loss: str) -> None:
    run = taught(toy_run(domain_loss=loss, stages="joint", shared_epochs=0))
    assert (distill(run, "books") / "manifest.json").is_file()


def test_the_manifest_holds_how_well_a_probe_reads_the_domain(finished_run: Path) -> None:
    """The false domain loss adds the domain's embedding to h, so the domain can be read off h without fail."""
    probe = read_json(finished_run / "meta_teacher" / "manifest.json")["domain_probe"]
    assert probe["chance"] == 0.5
    assert 0 <= probe["pooled"] <= 1
    assert probe["representation"] > 0.9


def test_a_teacher_near_chance_is_refused(toy_run: NewRun) -> None:
    """By the rows that dev has now."""
    run = taught(toy_run(allow_weak_teacher=False, teacher_learning_rate=1e-9))
    with pytest.raises(InputError, match=r"near chance: .* on 16 examples of dev.*--resume --allow-weak-teacher"):
        distill(run, "books")
    splits = run.data.splits | {"dev": [*run.data.splits["dev"], *toy_examples(4, 9, "new")]}
    with pytest.raises(InputError, match=r"near chance: .* on 20 examples of dev"):
        distill(replace(run, data=replace(run.data, splits=splits)), "books")


@pytest.mark.slow
def test_a_teacher_that_learns_nothing_is_trained_again_at_another_rate(
    toy_run: NewRun, base: Path, toy_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is then the teacher that one try at that rate gives."""
    monkeypatch.setattr("metakd.pipeline.teach.RATES", (1, 5e6, 0))
    run = taught(toy_run(teacher_learning_rate=1e-9, teacher_epochs=8, teacher_tries=3))
    manifest = read_json(run.folders.teacher / "manifest.json")
    first, second = manifest["tries"]
    assert (first["learning_rate"], second["learning_rate"]) == (1e-9, pytest.approx(5e-3))
    assert near_chance(first["on_training_rows"])
    assert not near_chance(manifest["check"])
    assert manifest["learning_rate"] == pytest.approx(5e-3)
    direct = taught(open_run(tmp_path / "direct", toy_data, base, teacher_learning_rate=5e6 * 1e-9, teacher_epochs=8))
    weights = [load_file(each.folders.teacher / "model.safetensors") for each in (run, direct)]
    assert all(weights[0][name].equal(weights[1][name]) for name in weights[1])


@pytest.mark.slow
@pytest.mark.parametrize(("rates", "scores"), [((1, 2, 3), (0.50, 0.52, 0.51)), ((1, 2, 1e39), (0.50, 0.52))])
def test_of_several_tries_the_best_is_kept(
    toy_run: NewRun,
    base: Path,
    toy_data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    rates: tuple[float, ...],
    scores: tuple[float, ...],
) -> None:
    """The second; a third that is worse, or whose loss is not finite, changes nothing."""
    drawn = iter(scores)
    monkeypatch.setattr("metakd.pipeline.teach.RATES", rates)
    monkeypatch.setattr(
        "metakd.pipeline.teach.sampled_accuracy", lambda *_: {"accuracy": next(drawn), "commonest_class": 0.5}
    )
    run = taught(toy_run(teacher_learning_rate=1e-3, teacher_tries=3))
    manifest = read_json(run.folders.teacher / "manifest.json")
    assert manifest["learning_rate"] == 2e-3
    assert len(manifest["tries"]) == 3
    assert ("failed" in manifest["tries"][2]) == (rates[2] > 3)
    drawn = iter([1.0])
    direct = taught(open_run(tmp_path / "direct", toy_data, base, teacher_learning_rate=2e-3))
    weights = [load_file(each.folders.teacher / "model.safetensors") for each in (run, direct)]
    assert all(weights[0][name].equal(weights[1][name]) for name in weights[1])


def test_a_first_try_whose_loss_is_not_finite_is_an_error(toy_run: NewRun) -> None:
    with pytest.raises(InputError, match="not finite"):
        taught(toy_run(teacher_learning_rate=1e30, teacher_tries=2))


def test_a_reloaded_model_that_differs_is_an_error(toy_run: NewRun, monkeypatch: pytest.MonkeyPatch) -> None:
    def save_changed(self: MetaTeacher, folder: Path) -> None:
        self.encoder.save_pretrained(folder)
        weights = load_file(folder / "model.safetensors")
        weights["classifier.weight"][0] += 1.0
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})

    run = toy_run()
    monkeypatch.setattr(MetaTeacher, "save", save_changed)
    with pytest.raises(CheckError, match="probabilities of the reloaded model differ"):
        taught(run)
    assert not run.folders.teacher.exists()
    assert not list(run.folder.glob(".*"))


def test_a_teacher_of_windows_counts_each_text_once(toy_run: NewRun) -> None:
    """Of texts of up to 10 tokens, 6 at a time: t comes from whole texts, and windows share their text's weight."""
    run, first = toy_run(max_length=6, teacher_windows=3), toy_run(max_length=6)
    texts, rows = run.features.teacher_texts(run.data.train)
    counts = Counter(rows.tolist())
    assert len(texts) > len(run.data.train) == len(first.features.teacher_texts(first.data.train)[0])
    assert {e.text for e in texts[len(run.data.train) :]}.isdisjoint({e.text for e in run.data.train})
    taught(run)
    encoder, features = load_base(run.settings, run.data.labels), run.features.encode(texts)
    e = embed(encoder, features, run.features.collator, "", "float32", torch.zeros(len(texts), 16))
    tokens = torch.from_numpy(features.lengths - 2.0).float()[:, None]  # without [CLS] and [SEP]
    columns = [run.features.encode(run.data.train).column(name) for name in ("labels", "domains")]
    total, count = torch.zeros(len(run.data.train), 16), torch.zeros(len(run.data.train), 1)
    whole = total.index_add(0, torch.from_numpy(rows), e * tokens) / count.index_add(0, torch.from_numpy(rows), tokens)
    expected = prototype_scores(prototypes(whole, *columns, 2, 2), whole, *columns)
    written = [row["score"] for row in read_rows(run.folders.weights / "weights.jsonl")]
    assert written == pytest.approx(expected.tolist(), abs=1e-4)
    weights = _weights(run, rows)
    assert weights["shares"].mean() == pytest.approx(1)
    totals = {row: share * counts[row] for row, share in zip(rows.tolist(), weights["shares"].tolist(), strict=True)}
    assert [*totals.values()] == pytest.approx([totals[0]] * len(run.data.train))
    t = weights["instance_weights"]
    assert all(t[place] == t[row] for place, row in enumerate(rows))
    assert run.fingerprints.weigh != first.fingerprints.weigh
