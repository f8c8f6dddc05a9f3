"""What `make lint` reports of known vulnerabilities, also where their service cannot be reached."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "tools"))

import audit

SOUND: dict[str, Any] = {"name": "good", "version": "1", "vulns": []}
FLAWED: dict[str, Any] = {"name": "bad", "version": "2", "vulns": [{"id": "CVE-1", "fix_versions": ["3"]}]}


def test_sound_and_skipped_packages_are_no_fault() -> None:
    messages = ["pip-audit: 1 packages audited, 0 known vulnerabilities", "not audited: odd (not there)"]
    assert audit.judge([SOUND, {"name": "odd", "skip_reason": "not there"}]) == (0, messages)


def test_all_pins_are_audited_only_after_the_first_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lock, queries = tmp_path / "lock", list[list[str]]()
    lock.write_text("# pins\ngood==1\nbad==2\n")
    monkeypatch.setattr("sys.argv", ["audit.py", str(lock)])

    def pip_audit(command: list[str], **_: Any) -> None:
        queries.append(Path(command[command.index("-r") + 1]).read_text().split())
        known = [{"good==1": SOUND, "bad==2": FLAWED}[pin] for pin in queries[-1]]
        Path(command[command.index("--output") + 1]).write_text(json.dumps({"dependencies": known}))

    monkeypatch.setattr(subprocess, "run", pip_audit)
    assert audit.main() == 1
    assert queries == [["good==1"], ["good==1", "bad==2"]]
    expected = "bad 2: CVE-1, mended in 3\npip-audit: 2 packages audited, 1 known vulnerabilities\n"
    assert capsys.readouterr().out == expected
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: subprocess.CompletedProcess([], 1, "", "no route\n"))
    assert audit.main() == 0
    assert "NOTHING WAS AUDITED, the service cannot be asked (no route)" in capsys.readouterr().out
    for code, message in ((1, "python: No module named pip_audit"), (2, "error: unrecognized arguments: --odd")):
        monkeypatch.setattr(subprocess, "run", Mock(return_value=subprocess.CompletedProcess([], code, "", message)))
        with pytest.raises(SystemExit, match=f"pip-audit cannot be run: {message}"):
            audit.main()


def test_pip_audit_has_the_flags_that_are_used() -> None:
    command = [sys.executable, "-m", "pip_audit", "--help"]
    page = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    flags = set(re.findall(r'"(--?[a-z-]+)"', Path(audit.__file__).read_text())) - {"-m"}
    assert {"--no-deps", "--format", "--output"} <= flags
    assert not [flag for flag in flags if flag not in page]
