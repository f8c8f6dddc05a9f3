"""What `make lint` says of known vulnerabilities, and that silence is never taken for a clean bill."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "tools"))

import audit

SOUND: dict[str, Any] = {"name": "good", "version": "1", "vulns": []}
FLAWED: dict[str, Any] = {"name": "bad", "version": "2", "vulns": [{"id": "CVE-1", "fix_versions": ["3"]}]}
SKIPPED: dict[str, Any] = {"name": "odd", "skip_reason": "not there"}


@pytest.mark.parametrize(
    ("audited", "code", "told"),
    [
        ([SOUND, SOUND], 0, ["pip-audit: 2 packages audited, 0 known vulnerabilities"]),
        (
            [SOUND, FLAWED],
            1,
            ["bad 2: CVE-1, mended in 3", "pip-audit: 2 packages audited, 1 known vulnerabilities"],
        ),
        (
            [SOUND, SKIPPED],
            0,
            ["pip-audit: 1 packages audited, 0 known vulnerabilities", "not audited: odd (not there)"],
        ),
        ([SKIPPED], 0, ["pip-audit: NOTHING WAS AUDITED, the service cannot be asked (not there)"]),
    ],
)
def test_what_is_said(audited: list[dict[str, Any]], code: int, told: list[str]) -> None:
    assert audit.judge(audited) == (code, told)


def test_all_are_asked_for_only_where_the_first_was_answered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lock, asked = tmp_path / "lock", list[list[str]]()
    lock.write_text("# pins\ngood==1\nbad==2\n")
    monkeypatch.setattr("sys.argv", ["audit.py", str(lock)])

    def answer(command: list[str], **_: Any) -> Any:
        pins = Path(command[command.index("-r") + 1]).read_text().split()
        asked.append(pins)
        known = {"good==1": SOUND, "bad==2": FLAWED}
        Path(command[command.index("--output") + 1]).write_text(json.dumps({"dependencies": [known[p] for p in pins]}))
        return subprocess.CompletedProcess(command, 1, "", "")

    monkeypatch.setattr(subprocess, "run", answer)
    assert audit.main() == 1
    assert asked == [["good==1"], ["good==1", "bad==2"]]
    assert "CVE-1" in capsys.readouterr().out
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: subprocess.CompletedProcess([], 1, "", "no route\n"))
    assert audit.main() == 0
    assert "NOTHING WAS AUDITED, the service cannot be asked (no route)" in capsys.readouterr().out
