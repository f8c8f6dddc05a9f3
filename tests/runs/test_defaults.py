"""Defaults that depend on how much text there is reach the run, its run.json, and the user."""

from pathlib import Path

import pytest

from conftest import read_json
from metakd import Run, Settings


def test_few_texts_change_what_the_user_has_not_chosen(
    base: Path, toy_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """256 texts are 16 batches of 16: 250 updates take 16 epochs."""
    monkeypatch.setattr("metakd.config.few_texts.FEW_TEXTS", 4_000)
    chosen = Settings(base=str(base), max_length=16, student="layers=2", shared_epochs=2)
    run = Run.assemble(tmp_path / "run", chosen, toy_data).begin()
    message = (
        "256 training texts with 2 labels: in place of the defaults, the run takes teacher_epochs 16, teacher_learning"
    )
    assert message in caplog.text.replace("--", "").replace("teacher-", "teacher_")
    assert (run.settings.batch_size, run.settings.teacher_epochs, run.settings.shared_epochs) == (16, 16, 2)
    stored = read_json(run.folder / "run.json")["settings"]
    again = Run.assemble(run.folder, Settings.build(stored), toy_data)
    assert again.settings.teacher_epochs == 16
    assert again.fingerprints.teach == run.fingerprints.teach
