"""What a student depends on: settings that it does not read leave it as it is."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from metakd import Run, Settings
from metakd.methods import METHODS

Marks = Callable[..., dict[str, str]]


@pytest.fixture
def marks(checkpoint: Callable[..., Path], toy_data: Path, tmp_path: Path) -> Marks:
    """Fingerprints of the steps of a run, and of the student of books by each method."""

    def build(**settings: Any) -> dict[str, str]:
        given = {"base": str(checkpoint()), "max_length": 16, "student": "layers=2", **settings}
        run = Run.assemble(tmp_path, Settings.build(given), toy_data)
        students = {method: run.distill_fingerprint(method, "books") for method in METHODS}
        return students | {"weigh": run.weigh_fingerprint, "teach": run.teach_fingerprint}

    return build


TAUGHT, UNTAUGHT = {"meta_kd", "cross_domain", "hrkd", "metadistil"}, {"fine_tuned", "fine_tuned_shared"}


@pytest.mark.parametrize(
    ("change", "moved"),
    [
        ({"alpha": 0.25}, TAUGHT | {"weigh", "teach"}),
        ({"weights": "none"}, TAUGHT | {"weigh", "teach"}),
        ({"teacher_epochs": 4}, TAUGHT | {"teach"}),
        ({"gamma2": 0.25}, TAUGHT),
        ({"shared_learning_rate": 1e-4}, TAUGHT),
        ({"student_init": "base"}, TAUGHT),
        ({"baseline_learning_rate": 3e-4}, UNTAUGHT),
        ({"windows": 1}, TAUGHT | UNTAUGHT),
        ({"predict_epochs": 2}, TAUGHT | UNTAUGHT),
        ({"layer_map": "1,4"}, TAUGHT | UNTAUGHT),
        ({"seed": 1}, TAUGHT | UNTAUGHT | {"teach"}),
        ({"max_length": 12}, TAUGHT | UNTAUGHT | {"weigh", "teach"}),
        ({"bootstrap": 100, "keep_cache": True, "track": "none"}, set()),
    ],
)
def test_what_a_step_has_no_use_for_leaves_its_fingerprint(
    marks: Marks, change: dict[str, Any], moved: set[str]
) -> None:
    before, after = marks(), marks(**change)
    assert {name for name in before if before[name] != after[name]} == moved


def test_methods_of_the_same_settings_are_told_apart(marks: Marks) -> None:
    assert len(set(marks().values())) == len(METHODS) + 2
