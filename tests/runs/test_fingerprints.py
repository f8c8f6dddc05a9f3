"""What a student depends on: settings that it does not read leave it as it is."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from metakd import Run, Settings
from metakd.methods import METHODS

Fingerprints = Callable[..., dict[str, str]]
BY_TEACHER = {"meta_kd", "cross_domain", "hrkd", "metadistil"}
BY_LABELS = {"fine_tuned", "fine_tuned_shared"}


@pytest.fixture
def fingerprints(base: Path, toy_data: Path, tmp_path: Path) -> Fingerprints:
    """Fingerprints of the steps of a run, and of the student of books by each method."""

    def build(**settings: Any) -> dict[str, str]:
        few = {"base": str(base), "max_length": 16, "student": "layers=2"}
        run = Run.assemble(tmp_path, Settings.build(few | settings), toy_data)
        students = {method: run.fingerprints.distill(method, "books") for method in METHODS}
        return students | {"weigh": run.fingerprints.weigh, "teach": run.fingerprints.teach}

    return build


@pytest.mark.parametrize(
    ("change", "moved"),
    [
        ({"alpha": 0.25}, BY_TEACHER | {"weigh", "teach"}),
        ({"weights": "none"}, BY_TEACHER | {"weigh", "teach"}),
        ({"teacher_epochs": 4}, BY_TEACHER | {"teach"}),
        ({"gamma2": 0.25}, BY_TEACHER),
        ({"shared_learning_rate": 1e-4}, BY_TEACHER),
        ({"student_init": "base"}, BY_TEACHER),
        ({"baseline_learning_rate": 3e-4}, BY_LABELS),
        ({"windows": 1}, BY_TEACHER | BY_LABELS),
        ({"predict_epochs": 2}, BY_TEACHER | BY_LABELS),
        ({"layer_map": "1,4"}, BY_TEACHER | BY_LABELS),
        ({"seed": 1}, BY_TEACHER | BY_LABELS | {"teach"}),
        ({"max_length": 12}, BY_TEACHER | BY_LABELS | {"weigh", "teach"}),
        ({"keep_cache": True, "track": "none"}, set()),
    ],
)
def test_settings_move_what_reads_them(fingerprints: Fingerprints, change: dict[str, Any], moved: set[str]) -> None:
    before, after = fingerprints(), fingerprints(**change)
    assert {name for name in before if before[name] != after[name]} == moved


def test_methods_of_the_same_settings_have_different_fingerprints(fingerprints: Fingerprints) -> None:
    assert len(set(fingerprints().values())) == len(METHODS) + 2
