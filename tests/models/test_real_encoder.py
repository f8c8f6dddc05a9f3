"""One small run with the real packaged encoder and real reviews: all-MiniLM-L6-v2 to a three-layer student."""

from itertools import product
from pathlib import Path

import numpy as np
import pytest
from transformers import pipeline as hugging_face_pipeline

from conftest import read_json
from metakd import Classifier, Run, Settings, load_dataset, run_all
from metakd.config.settings import DEMO_DATA, DEMO_SETTINGS
from metakd.config.settings_file import read_settings_file
from metakd.data.splits import of_domain
from metakd.export.exporter import export
from metakd.export.web_page import FOLDER, fetch_library, write_page
from metakd.models.hub import ALL_MINILM, resolve
from metakd.models.loading import load_encoder, load_tokenizer
from other_clients import answers, by_onnxruntime, by_transformers_js, npm, opened


def test_the_packaged_encoder_is_all_minilm() -> None:
    model = load_encoder(resolve(ALL_MINILM.package), ["a", "b"])
    assert (model.config.num_hidden_layers, model.config.hidden_size) == (6, 384)
    assert model.base_model.num_parameters() == 22_713_216
    tokenizer = load_tokenizer(resolve(ALL_MINILM.package), 128)
    assert len(tokenizer("short")["input_ids"]) == 3  # the file's own padding to 128 is cleared
    assert len(tokenizer("long " * 300)["input_ids"]) == 302  # and so is its truncation


@pytest.mark.slow
def test_a_small_run_ends_in_students_that_read_reviews_wherever_they_are(tmp_path: Path) -> None:
    """Two of the demo's domains, in one stage and without the baseline; ONNX Runtime alone, transformers.js and the
    page in a browser say what metakd says of 30 texts of dev."""
    settings = Settings.build({**read_settings_file(DEMO_SETTINGS), "baseline": False, "stages": "joint"})
    data = load_dataset(DEMO_DATA).without("films").without("electronics")
    run = Run(tmp_path / "run", settings, data).begin()
    run_all(run)
    average = read_json(tmp_path / "run" / "results.json")["average"]
    assert average["meta_teacher"]["accuracy"] > 0.75
    assert average["student"]["accuracy"] > 0.72
    assert average["tfidf"]["accuracy"] < 0.8
    assert average["student"]["parameters"] == pytest.approx(17.4e6, rel=0.02)
    folder = tmp_path / "run" / "students" / "books"
    text = "Wonderful prose, I could not put it down and I have given it to all my friends."
    assert Classifier.from_pretrained(folder).predict([text])[0].label == "positive"
    assert hugging_face_pipeline("text-classification", str(folder))(text)[0]["label"] == "positive"

    models = tmp_path / "models"
    export(run, models, int8=False, force=True)
    texts = {domain: [e.text for e in of_domain(data.splits["dev"], domain)[:15]] for domain in data.domains}
    answered = {}
    for domain, of_dev in texts.items():
        answered[domain] = Classifier.from_pretrained(models / domain).predict_proba(of_dev)
        np.testing.assert_allclose(by_onnxruntime(models / domain, of_dev), answered[domain], atol=1e-4)
    for domain, how in product(texts, ("pipeline", "windows")):
        p = by_transformers_js(models / domain, how, texts[domain])
        np.testing.assert_allclose(p, answered[domain], atol=1e-4)
    with npm():
        fetch_library(models / FOLDER)
    write_page(models, {domain: domain for domain in texts})
    with opened(models, []) as page:
        for domain, of_dev in texts.items():
            page.get_by_label("Domain").select_option(domain)
            classifier = Classifier.from_pretrained(models / domain)
            for text in of_dev:
                expected = classifier.predict([text], top_k=2)[0]
                assert answers(page, text) == pytest.approx({e.label: 100 * e.probability for e in expected}, abs=0.06)
