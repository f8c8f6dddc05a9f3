"""Instance weights: room on the disk for what they are computed from, and how they are distributed."""

import errno
from pathlib import Path
from unittest.mock import Mock

import pytest
import torch

from conftest import NewRun, read_json, read_rows
from metakd.models.encoder import forward
from metakd.models.loading import load_encoder
from metakd.pipeline import checks
from metakd.pipeline.weigh import weigh


def test_vectors_that_do_not_fit_on_the_disk_leave_nothing(toy_run: NewRun, monkeypatch: pytest.MonkeyPatch) -> None:
    run, full = toy_run(), OSError(errno.ENOSPC, "No space left on device")
    monkeypatch.setattr("metakd.pipeline.weigh.reserve", Mock(side_effect=full))
    with pytest.raises(OSError, match="No space left"):
        weigh(run)
    assert {path.name for path in run.folder.iterdir()} == {"run.json", "run.lock"}


@pytest.mark.parametrize(("weights", "alpha"), [("normalized", 0.5), ("raw", 0.0), ("raw", 1.0)])
def test_weights_are_those_of_the_vectors_of_the_base(toy_run: NewRun, weights: str, alpha: float) -> None:
    """t_i = α · home + (1 − α) · foreign, of two domains, by hand; divided by the mean of what is not negative."""
    run = toy_run(weights=weights, alpha=alpha)
    rows, train = read_rows(weigh(run) / "weights.jsonl"), run.data.train
    assert [row["id"] for row in rows] == [e.id for e in train]
    encoder = load_encoder(Path(run.settings.base), run.data.labels).eval()
    with torch.no_grad():
        each = [forward(encoder, run.features.collator([row])).pooled for row in run.features.encode(train)]
    vectors = torch.cat(each).double()
    kinds = [(e.domain, e.label) for e in train]
    scores = []
    for i, (domain, label) in enumerate(kinds):
        home = [vectors[j] for j, kind in enumerate(kinds) if kind == (domain, label) and j != i]
        foreign = [vectors[j] for j, kind in enumerate(kinds) if kind[0] != domain and kind[1] == label]
        cosines = [torch.cosine_similarity(torch.stack(side).mean(0), vectors[i], dim=0) for side in (home, foreign)]
        scores.append(alpha * cosines[0].item() + (1 - alpha) * cosines[1].item())
    assert [row["score"] for row in rows] == pytest.approx(scores, abs=1e-5)
    t = [max(score, 0) for score in scores]
    mean = sum(t) / len(t) if weights == "normalized" else 1
    assert [row["weight"] for row in rows] == pytest.approx([each / mean for each in t], abs=1e-4)


def test_manifests_hold_the_distribution_of_weights(finished_run: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Five quantiles in order, and a share between nothing and all; a notice where all weights are alike."""
    for step, key in (("instance_weights", "weights"), ("students/books", "expertise")):
        spread = read_json(finished_run / step / "manifest.json")[key]
        assert len(spread["quantiles"]) == 5
        assert spread["quantiles"] == sorted(spread["quantiles"])
        assert 0 < spread["effective_share"] <= 1
    assert not caplog.text
    assert checks.spread(torch.ones(8), "weights of a test")["effective_share"] == 1
    assert "weights of a test hardly differ" in caplog.text
