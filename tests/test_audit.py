"""What `make lint` reports of known vulnerabilities, also where their service cannot be reached."""

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
TWO, ONE = (f"pip-audit: {count} packages audited, 0 known vulnerabilities" for count in (2, 1))


@pytest.mark.parametrize(
    ("audited", "code", "messages"),
    [
        ([SOUND, SOUND], 0, [TWO]),
        ([SOUND, FLAWED], 1, ["bad 2: CVE-1, mended in 3", TWO.replace("0 known", "1 known")]),
        ([SOUND, SKIPPED], 0, [ONE, "not audited: odd (not there)"]),
        ([SKIPPED], 0, ["pip-audit: NOTHING WAS AUDITED, the service cannot be asked (not there)"]),
    ],
)
def test_verdict(audited: list[dict[str, Any]], code: int, messages: list[str]) -> None:
    assert audit.judge(audited) == (code, messages)


def test_all_pins_are_audited_only_after_the_first_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lock, queries = tmp_path / "lock", list[list[str]]()
    lock.write_text("# pins\ngood==1\nbad==2\n")
    monkeypatch.setattr("sys.argv", ["audit.py", str(lock)])

    def pip_audit(command: list[str], **_: Any) -> Any:
        queries.append(Path(command[command.index("-r") + 1]).read_text().split())
        known = [{"good==1": SOUND, "bad==2": FLAWED}[pin] for pin in queries[-1]]
        Path(command[command.index("--output") + 1]).write_text(json.dumps({"dependencies": known}))
        return subprocess.CompletedProcess(command, 1, "", "")

    monkeypatch.setattr(subprocess, "run", pip_audit)
    assert audit.main() == 1
    assert queries == [["good==1"], ["good==1", "bad==2"]]
    assert "CVE-1" in capsys.readouterr().out
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: subprocess.CompletedProcess([], 1, "", "no route\n"))
    assert audit.main() == 0
    assert "NOTHING WAS AUDITED, the service cannot be asked (no route)" in capsys.readouterr().out
