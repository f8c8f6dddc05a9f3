"""Settings: one definition each, all faults at once, and a table in the docs that is made of them."""

from pathlib import Path

import pytest

from metakd.config.groups import GROUPS
from metakd.config.settings import Settings
from metakd.config.settings_file import read_settings_file
from metakd.utils.errors import InputError, require


def test_all_faults_stand_in_one_message() -> None:
    with pytest.raises(InputError) as error:
        Settings.build({"alpha": 2, "domain_loss": "true", "seed": "x", "nothing": 1})
    assert "4 faults" in str(error.value)
    for name in ("alpha = 2", "domain_loss = 'true'", "seed = 'x'", "nothing: no such setting"):
        assert name in str(error.value)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"terms": "hidden", "stages": "two"}, "needs the term 'prediction'"),
        ({"terms": "hidden", "stages": "joint", "student_init": "base"}, "without 'prediction', a student"),
        ({"terms": "hidden", "student": "some/checkpoint"}, "without 'prediction', a student"),
        ({"terms": "prediction", "match_epochs": 1, "stages": "two"}, "has no term to learn from"),
        ({"terms": "prediction,prediction", "stages": "joint"}, "each only once"),
        ({"terms": ""}, "at least one term"),
        ({"terms": "logits"}, "terms.0 = 'logits'"),
    ],
)
def test_settings_that_do_not_fit_together_are_refused(values: dict[str, str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Settings.build(values)


def test_flags_and_yaml_give_the_same_settings(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("terms: [hidden, prediction]\nseed: 3\nbaseline: false\ndomain_loss: 'false'\nlayer_map: [2, 4]\n")
    flags = {"terms": "hidden, prediction", "seed": "3", "domain_loss": "false", "layer_map": "2,4", "baseline": False}
    assert Settings.build(read_settings_file(file)) == Settings.build(flags)


def test_a_false_in_yaml_does_not_switch_the_domain_loss_on(tmp_path: Path) -> None:
    """`domain_loss: false` would read as off, while the paper's loss has that name."""
    (file := tmp_path / "run.yaml").write_text("domain_loss: false\n")
    with pytest.raises(InputError, match="write none for no such loss, or 'false' in quotes"):
        Settings.build(read_settings_file(file))


def test_every_setting_has_help_and_a_group() -> None:
    assert sorted(name for names in GROUPS.values() for name in names) == sorted(Settings.model_fields)
    assert [name for name, field in Settings.model_fields.items() if not (field.description or "").endswith(".")] == []


def test_a_missing_extra_names_the_command_that_installs_it() -> None:
    with pytest.raises(InputError, match=r"pip install '\.\[train\]'"):
        require("no_such_module", "train")


@pytest.fixture
def few_texts(monkeypatch: pytest.MonkeyPatch) -> int:
    """The number of texts below which defaults change; the other tests set it to 0."""
    monkeypatch.setattr("metakd.config.few_texts.FEW_TEXTS", 4_000)
    return 4_000


def test_few_texts_change_defaults_and_no_chosen_value(few_texts: int) -> None:
    """1,000 texts are 63 batches of 16: four passes make 252 updates, eight 504; 32 batches of 32 need eight."""
    sized = Settings().sized_for(1_000, 2)
    assert (sized.batch_size, sized.teacher_learning_rate) == (16, 1e-4)
    assert (sized.teacher_epochs, sized.shared_epochs) == (4, 8)
    assert Settings(batch_size=32).sized_for(1_000, 2).teacher_epochs == 8
    ready = Settings(teacher="x").sized_for(1_000, 2)
    assert (ready.base, ready.teacher_epochs, ready.teacher_learning_rate, ready.batch_size) == ("x", 0, 5e-5, 16)
    chosen = Settings(teacher_epochs=1, shared_epochs=0).sized_for(1_000, 2)
    assert (chosen.teacher_epochs, chosen.shared_epochs) == (1, 0)
    assert Settings().sized_for(few_texts, 19) == Settings()
    assert Settings().sized_for(few_texts, 20) == Settings(teacher_learning_rate=2e-4)
    assert Settings(teacher_learning_rate=1e-5).sized_for(few_texts, 150).teacher_learning_rate == 1e-5
    assert Settings().sized_for(few_texts - 1, 2).teacher_epochs == 3
    assert Settings.build(sized.model_dump()).sized_for(100, 150) == sized  # as from run.json


@pytest.mark.usefixtures("few_texts")
def test_many_labels_need_more_updates_at_a_higher_rate() -> None:
    """3,000 texts are 188 batches of 16; 150 labels need 1,050 updates."""
    sized = Settings().sized_for(3_000, 150)
    assert (sized.teacher_learning_rate, sized.teacher_epochs, sized.shared_epochs) == (2e-4, 6, 12)
    assert Settings().sized_for(3_000, 150, several=True).teacher_epochs == 12
