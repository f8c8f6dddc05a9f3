"""Known vulnerabilities of the packages in requirements.lock, by pip-audit.

    python tools/audit.py [requirements.lock]

Exits with 1 where one is known. Where the service that knows them cannot be asked, as on a machine without a network
or behind a mirror that only has packages, it says that nothing was audited and exits with 0.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

LOCK = Path(__file__).parents[1] / "requirements.lock"


def audit(pins: list[str]) -> list[dict[str, Any]]:
    """What pip-audit reports of each pinned package; a reason to skip it, of all of them, where it has no service."""
    with tempfile.TemporaryDirectory() as folder:
        listed, report = Path(folder) / "pins.txt", Path(folder) / "report.json"
        listed.write_text("\n".join(pins) + "\n", encoding="utf-8")
        command = [sys.executable, "-m", "pip_audit", "-r", str(listed), "--no-deps", "--disable-pip"]
        command += ["--timeout", "10", "--progress-spinner", "off", "--format", "json", "--output", str(report)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if not report.is_file():
            reason = (done.stderr.strip().splitlines() or ["no answer"])[-1]
            if done.returncode == 2 or "No module named" in reason:  # our command, not their service
                sys.exit(f"pip-audit cannot be run: {reason}")
            return [{"name": pin.partition("==")[0], "skip_reason": reason} for pin in pins]
        return list(json.loads(report.read_text(encoding="utf-8"))["dependencies"])


def judge(audited: list[dict[str, Any]]) -> tuple[int, list[str]]:
    """The exit code and the messages."""
    known = [
        f"{pin['name']} {pin['version']}: {flaw['id']}, mended in {', '.join(flaw['fix_versions']) or 'no version'}"
        for pin in audited
        for flaw in pin.get("vulns", [])
    ]
    skipped = [pin for pin in audited if "skip_reason" in pin]
    messages = list(known)
    if len(skipped) == len(audited):
        messages.append(f"pip-audit: NOTHING WAS AUDITED, the service cannot be asked ({skipped[0]['skip_reason']})")
    else:
        count = len(audited) - len(skipped)
        messages.append(f"pip-audit: {count} packages audited, {len(known)} known vulnerabilities")
        messages += [f"not audited: {pin['name']} ({pin['skip_reason']})" for pin in skipped]
    return (1 if known else 0), messages


def main() -> int:
    lock = Path(sys.argv[1]) if sys.argv[1:] else LOCK
    pins = [pin for pin in lock.read_text(encoding="utf-8").splitlines() if "==" in pin]
    audited = audit(pins[:1])  # one package is enough to see whether the service answers
    if "skip_reason" not in audited[0]:
        audited = audit(pins)
    code, messages = judge(audited)
    print("\n".join(messages))
    return code


if __name__ == "__main__":
    sys.exit(main())
