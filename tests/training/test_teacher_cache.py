"""Cached teacher outputs: those of a live teacher, whole, of the right teacher, within the budget."""

from __future__ import annotations

import shutil
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from conftest import NewRun, encoded, open_run, read_json, reopen, taught
from metakd.data.tokenization import Collator, Encoded
from metakd.methods.base import Stage
from metakd.models.attention import raw_scores
from metakd.models.forward_passes import teacher_outputs_in_order
from metakd.models.loading import load_encoder
from metakd.models.meta_teacher import NO_LAYERS, MetaTeacher, TeacherLayers, freeze
from metakd.pipeline.distill import distill, distill_all
from metakd.pipeline.teacher_outputs import layers_to_keep
from metakd.training import teacher_cache
from metakd.training.teacher_cache import TeacherCache, fits, layer_bytes
from metakd.utils.artifacts import write_manifest
from metakd.utils.hardware import Precision

LAYERS = TeacherLayers(hidden=(0, 2, 4), attention=(2, 4))


def teacher_of(folder: Path) -> MetaTeacher:
    return freeze(MetaTeacher(load_encoder(folder, ["a", "b"]), 2, "false", 0.5))


def features_of(folder: Path, count: int) -> Encoded:
    return encoded(folder, count, domains=np.arange(count) % 2)


def write(
    folder: Path, teacher: MetaTeacher, features: Encoded, budget: float = 1e9, precision: Precision = "float32"
) -> TeacherCache:
    folder.mkdir()
    outputs = teacher_outputs_in_order(teacher, features, Collator(0), LAYERS, precision)
    fitting = fits(layer_bytes(features.lengths, 16, LAYERS, precision), budget)
    TeacherCache.write(folder, [f"t-{i}" for i in range(len(features))], outputs, LAYERS, fitting, precision)
    return TeacherCache(folder, LAYERS)


@pytest.mark.parametrize("shard", [1000, 2**26])
def test_outputs_are_kept(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shard: int) -> None:
    """One shard or many, rows in any order: logits, E(x), h, hidden states and raw scores of every real token."""
    monkeypatch.setattr(teacher_cache, "SHARD_BYTES", shard)
    teacher, features = teacher_of(base), features_of(base, 150)
    cache = write(tmp_path / "cache", teacher, features)
    assert (len(list((tmp_path / "cache").glob("shard-*"))) > 1) == (shard == 1000)
    rows = torch.tensor([149, 3, 70, 8])
    assert cache.rows(["t-149", "t-3"]) == [149, 3]
    batch = Collator(0)([features[row] for row in rows.tolist()])
    live, read = teacher.outputs(batch, LAYERS), cache.read(rows, LAYERS)
    for name in ("logits", "representation"):
        torch.testing.assert_close(getattr(read, name), getattr(live, name))
    real = batch["attention_mask"].bool()
    for layer in LAYERS.hidden:
        torch.testing.assert_close(read.hidden_states[layer][real], live.hidden_states[layer][real])
        assert (read.hidden_states[layer][~real] == 0).all()
    pairs = (real[:, :, None] & real[:, None])[:, None].expand(-1, 2, -1, -1)
    for layer in LAYERS.attention:
        ours, theirs = (raw_scores(outputs.attention_factors[layer]) for outputs in (read, live))
        torch.testing.assert_close(ours[pairs], theirs[pairs])


def test_bfloat16_takes_half_the_room_and_stays_near(base: Path, tmp_path: Path) -> None:
    teacher, features = teacher_of(base), features_of(base, 40)
    whole = write(tmp_path / "whole", teacher, features)
    half = write(tmp_path / "half", teacher, features, precision="bfloat16")
    sizes = [(tmp_path / name / "shard-00000.safetensors").stat().st_size for name in ("whole", "half")]
    assert sizes[1] < 0.6 * sizes[0]
    one, other = (cache.read(torch.arange(40), LAYERS).hidden_states[4].float() for cache in (whole, half))
    assert (one - other).abs().max() < 0.1


def test_a_budget_keeps_the_shortest_and_the_rest_stays_live(base: Path, tmp_path: Path) -> None:
    """7 tokens of width 2, one hidden and one attention layer: 7 · (1 + 2) · 2 · 4 = 168 bytes."""
    one = TeacherLayers(hidden=(1,), attention=(1,))
    sizes = layer_bytes(np.array([7, 3, 5]), 2, one, "float32")
    assert sizes.tolist() == [168, 72, 120]
    assert layer_bytes(np.array([7]), 2, one, "bfloat16").tolist() == [84]
    assert fits(sizes, 192).tolist() == [False, True, True]
    assert fits(sizes, 191).tolist() == [False, True, False]
    assert not fits(sizes, 0).any()

    teacher, features = teacher_of(base), features_of(base, 60)
    middle = float(np.sort(layer_bytes(features.lengths, 16, LAYERS, "float32"))[:30].sum())
    cache = write(tmp_path / "cache", teacher, features, budget=middle)
    order = torch.from_numpy(np.argsort(features.lengths, kind="stable"))
    short, long = order[:30], order[30:]
    assert cache.holds(short, LAYERS)
    assert not cache.holds(long, LAYERS)
    assert not cache.holds(torch.cat([short, long[:1]]), LAYERS)
    assert cache.holds(long, NO_LAYERS)
    assert not cache.holds(short, TeacherLayers(hidden=(3,)))


def test_layers_are_kept_only_where_they_are_read_twice() -> None:
    def stage(epochs: int, layers: TeacherLayers, shared: bool = False) -> Stage:
        return Stage("s", epochs, 1e-3, ("hidden",), layers, shared)

    one, other = TeacherLayers(hidden=(2,)), TeacherLayers(hidden=(4,), attention=(4,))
    assert layers_to_keep([stage(1, one), stage(9, NO_LAYERS)]) == NO_LAYERS
    assert layers_to_keep([stage(2, one)]) == one
    both = layers_to_keep([stage(1, one, shared=True), stage(1, other)])
    assert both == TeacherLayers(hidden=(2, 4), attention=(4,))


# --- In a run -----------------------------------------------------------------------------------------------------


def assert_same(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> None:
    """Weights within 1e-5, but for biases of keys: softmax takes no notice of them, AdamW scales up mere rounding."""
    differ = {name: (value - theirs[name]).abs().max().item() for name, value in ours.items()}
    assert not {name: by for name, by in differ.items() if by > 1e-5 and not name.endswith("key.bias")}


@pytest.mark.slow
def test_the_cache_changes_no_student(toy_run: NewRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Three epochs over all layers: from the cache, live, and half of each."""
    weights, messages = {}, {}
    begun = taught(toy_run(baseline=False, match_epochs=2))
    features = begun.features.encode(begun.data.train, begun.features.tokenizer)
    needed = layer_bytes(features.lengths, 16, LAYERS, "float32").sum() / 1e9
    for name, budget in (("kept", 1.0), ("live", 0.0), ("half", needed / 2)):
        run = reopen(shutil.copytree(begun.folder, tmp_path / name), cache_budget=budget).begin()
        capsys.readouterr()
        weights[name] = load_file(distill(run, "books") / "model.safetensors")
        messages[name] = " ".join(capsys.readouterr().err.split())
        assert [path.name for path in run.folders.teacher_cache.iterdir()] == ["manifest.json"]
    count = len(begun.data.train)
    assert f"for {count} of {count} texts" in messages["kept"]
    assert f"for 0 of {count} texts" in messages["live"]
    for name in ("live", "half"):
        assert_same(weights[name], weights["kept"])


def test_once_all_is_cached_the_teacher_is_not_run(toy_run: NewRun, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its outputs are computed once for each example, whatever the number of epochs, students and stages."""
    run = taught(toy_run(baseline=False, match_epochs=3))
    sizes: list[int] = []
    outputs = MetaTeacher.outputs

    def counted(self: MetaTeacher, batch: dict[str, torch.Tensor], *rest: object, **named: object) -> object:
        sizes.append(len(batch["labels"]))
        return outputs(self, batch, *rest, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(MetaTeacher, "outputs", counted)
    distill_all(run, run.data.domains, ["meta_kd"])
    assert sum(sizes) == len(run.data.train)


@pytest.mark.slow
def test_a_kept_cache_is_used_again_and_a_stale_or_torn_one_is_not(base: Path, toy_data: Path, tmp_path: Path) -> None:
    settings = {"baseline": False, "match_epochs": 2, "keep_cache": True}
    run, other = (taught(open_run(tmp_path / f"{seed}", toy_data, base, **settings, seed=seed)) for seed in (0, 1))
    index = run.folders.teacher_cache / "index.safetensors"

    def made() -> tuple[float, str]:
        """When the cache was written that is there once all students are trained again, and its fingerprint."""
        shutil.rmtree(run.folder / "students", ignore_errors=True)
        distill_all(run, run.data.domains, ["meta_kd"])
        return index.stat().st_mtime, read_json(run.folders.teacher_cache / "manifest.json")["fingerprint"]

    first = made()
    assert made() == first
    shard = run.folders.teacher_cache / "shard-00000.safetensors"
    shard.write_bytes(shard.read_bytes()[:-100])
    torn = made()
    assert torn[0] > first[0]
    assert torn[1] == first[1]
    shutil.copy(other.folders.teacher / "model.safetensors", run.folders.teacher)
    facts = read_json(run.folders.teacher / "manifest.json")
    write_manifest(run.folders.teacher, {name: value for name, value in facts.items() if name != "files"})
    assert made()[1] != torn[1]


def _distill(folder: Path, domain: str) -> Path:
    return distill(reopen(folder).begin(), domain) / "model.safetensors"


@pytest.mark.slow
def test_two_processes_share_a_cache(toy_run: NewRun, tmp_path: Path) -> None:
    """Two domains at once, in one folder, give the students that they give one after the other."""
    apart, domains = taught(toy_run(baseline=False, match_epochs=2, shared_epochs=0)).folder, ("books", "kitchen")
    folders = [shutil.copytree(apart, tmp_path / "together")] * 2
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        for domain, together in zip(domains, pool.map(_distill, folders, domains), strict=True):
            assert_same(load_file(together), load_file(_distill(apart, domain)))


def test_for_a_single_pass_no_layers_are_kept(toy_run: NewRun, capsys: pytest.CaptureFixture[str]) -> None:
    """Only logits and h are on disk, and no message mentions gigabytes."""
    run = taught(toy_run(baseline=False, keep_cache=True))
    distill(run, "books")
    files = sorted(path.name for path in run.folders.teacher_cache.iterdir())
    assert files == ["ids.json", "index.safetensors", "manifest.json"]
    assert "teacher cache:" not in capsys.readouterr().err
