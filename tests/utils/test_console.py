"""Messages and progress: what a log shows, and in whose words an error speaks."""

import pytest

from metakd import Settings
from metakd.utils import console
from metakd.utils.errors import InputError, addressed, messages_with_flags


def test_a_log_gets_lines_with_updates_loss_and_time_left(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Resumed at update 40 of 100; 10 updates took 35 seconds, so the 50 left take 175; lines come every 30 seconds."""
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    with console.progress_bar("teach", 100) as progress:
        for done in range(41, 51):
            now[0] += 3.5
            progress(completed=done, loss=0.5)
    assert capsys.readouterr().err.splitlines() == ["teach", "teach: 49 of 100, loss 0.5, 0:02:58 left"]


@pytest.mark.parametrize(
    ("message", "in_python"),
    [
        ("raise --teacher-epochs, or --no-baseline.", "raise teacher_epochs, or baseline=False."),
        ("--gamma2 = 'x': not a number", "gamma2 = 'x': not a number"),
        ("go on by `metakd run --resume`; or --track none", "go on by `metakd run --resume`; or track none"),
        ("pip install --upgrade torch, then --base", "pip install --upgrade torch, then base"),
        ("3 -- 4 --", "3 -- 4 --"),
    ],
)
def test_messages_speak_of_flags_on_the_command_line_and_of_arguments_in_python(message: str, in_python: str) -> None:
    assert (addressed(message), str(InputError(message))) == (in_python, in_python)
    with messages_with_flags():
        assert str(InputError(message)) == message


def test_settings_faults_speak_of_flags_on_the_command_line() -> None:
    with messages_with_flags(), pytest.raises(InputError) as error:
        Settings.build({"gamma2": -1})
    with messages_with_flags():
        assert "--gamma2 = -1" in str(error.value)
    assert "- gamma2 = -1" in str(error.value)
