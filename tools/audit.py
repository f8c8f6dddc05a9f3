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


def ask(pins: list[str]) -> list[dict[str, Any]]:
    """What pip-audit found of each pinned package; of all of them a reason to skip it where it could not ask."""
    with tempfile.TemporaryDirectory() as folder:
        listed, found = Path(folder) / "pins.txt", Path(folder) / "found.json"
        listed.write_text("\n".join(pins) + "\n", encoding="utf-8")
        command = [sys.executable, "-m", "pip_audit", "-r", str(listed), "--no-deps", "--disable-pip"]
        command += ["--timeout", "10", "--progress-spinner", "off", "--format", "json", "--output", str(found)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if not found.is_file():
            reason = (done.stderr.strip().splitlines() or ["no answer"])[-1]
            return [{"name": pin.partition("==")[0], "skip_reason": reason} for pin in pins]
        return list(json.loads(found.read_text(encoding="utf-8"))["dependencies"])


def judge(audited: list[dict[str, Any]]) -> tuple[int, list[str]]:
    """The exit code and what there is to say."""
    known = [
        f"{own['name']} {own['version']}: {flaw['id']}, mended in {', '.join(flaw['fix_versions']) or 'no version'}"
        for own in audited
        for flaw in own.get("vulns", [])
    ]
    skipped = [own for own in audited if "skip_reason" in own]
    told = list(known)
    if len(skipped) == len(audited):
        told.append(f"pip-audit: NOTHING WAS AUDITED, the service cannot be asked ({skipped[0]['skip_reason']})")
    else:
        told.append(f"pip-audit: {len(audited) - len(skipped)} packages audited, {len(known)} known vulnerabilities")
        told += [f"not audited: {own['name']} ({own['skip_reason']})" for own in skipped]
    return (1 if known else 0), told


def main() -> int:
    lock = Path(sys.argv[1]) if sys.argv[1:] else LOCK
    pins = [line for line in lock.read_text(encoding="utf-8").splitlines() if "==" in line]
    found = ask(pins[:1])  # one question tells whether there is anyone to ask
    if "skip_reason" not in found[0]:
        found = ask(pins)
    code, told = judge(found)
    print("\n".join(told))
    return code


if __name__ == "__main__":
    sys.exit(main())
