"""One small run with the real packaged encoder and real reviews: all-MiniLM-L6-v2 to a three-layer student."""

import json
from pathlib import Path

import pytest
from transformers import pipeline as hugging_face_pipeline

from metakd import Classifier, Run, Settings, load_dataset, run_all
from metakd.config.settings import DEMO_DATA, DEMO_SETTINGS
from metakd.config.settings_file import read_settings_file
from metakd.models.hub import ALL_MINILM, resolve
from metakd.models.loading import load_encoder, load_tokenizer


def test_the_packaged_encoder_is_all_minilm() -> None:
    model = load_encoder(resolve(ALL_MINILM.package), ["a", "b"])
    assert (model.config.num_hidden_layers, model.config.hidden_size) == (6, 384)
    assert model.base_model.num_parameters() == 22_713_216
    tokenizer = load_tokenizer(resolve(ALL_MINILM.package), 128)
    assert len(tokenizer("short")["input_ids"]) == 3  # the file's own padding to 128 is cleared
    assert len(tokenizer("long " * 300)["input_ids"]) == 302  # and so is its truncation


@pytest.mark.slow
def test_a_small_run_ends_in_students_that_read_reviews(tmp_path: Path) -> None:
    """Two of the demo's domains, without the baseline, which takes a third of the time that all of it does."""
    settings = Settings.build({**read_settings_file(DEMO_SETTINGS), "baseline": False})
    data = load_dataset(DEMO_DATA).without("films").without("electronics")
    run_all(Run(tmp_path / "run", settings, data).begin())
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["average"]["meta_teacher"]["accuracy"] > 0.75
    assert results["average"]["student"]["accuracy"] > 0.72
    assert results["average"]["tfidf"]["accuracy"] < 0.8
    assert results["average"]["student"]["parameters"] == pytest.approx(17.4e6, rel=0.02)
    folder = tmp_path / "run" / "students" / "books"
    text = "Wonderful prose, I could not put it down and I have given it to all my friends."
    assert Classifier.load(folder).predict([text])[0].label == "positive"
    assert hugging_face_pipeline("text-classification", str(folder))(text)[0]["label"] == "positive"
