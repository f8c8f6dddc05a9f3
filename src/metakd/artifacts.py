"""Files that are whole or absent: written under a temporary name, renamed, and their manifest last."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from metakd.errors import InputError
from metakd.hardware import processor_name

MANIFEST, RUN_FILE = "manifest.json", "run.json"
RECORDED_PACKAGES = (
    "metakd",
    "torch",
    "transformers",
    "tokenizers",
    "accelerate",
    "scikit-learn",
    "numpy",
    "onnxruntime",
)


def write_text(path: Path, text: str) -> None:
    """Write `path` so that it holds all of `text` or what it held before."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.partial")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, sort_keys=False) + "\n")


@contextlib.contextmanager
def step_folder(folder: Path, step: str, fingerprint: str, facts: Mapping[str, Any]) -> Iterator[Path]:
    """A folder to write a step's results into; it takes its place with a manifest, or not at all.

    `facts` may be filled while the step runs; the manifest holds them as they are at its end.
    """
    temporary = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    started = datetime.now(UTC)
    try:
        yield temporary
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    manifest = {
        "step": step,
        "fingerprint": fingerprint,
        **facts,
        "started": started.isoformat(timespec="seconds"),
        "seconds": round((datetime.now(UTC) - started).total_seconds(), 1),
        "environment": environment(),
    }
    write_json(temporary / MANIFEST, manifest)
    shutil.rmtree(folder, ignore_errors=True)
    temporary.replace(folder)


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """The manifest of a finished step, or None where there is none (or it is torn)."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return manifest if isinstance(manifest, dict) else None


def is_done(folder: Path, expected: str) -> bool:
    """Whether a step's result is there; InputError where it was made with other settings or data."""
    manifest = read_manifest(folder)
    if manifest is None:
        return False
    if manifest.get("fingerprint") == expected:
        return True
    raise InputError(
        f"{folder} was made with other settings, data or base, or in another precision. Choose another --output, or "
        "delete that folder to have it made anew"
    )


def read_run(folder: Path) -> dict[str, Any]:
    """The description that `Run.begin` left in the folder."""
    try:
        described = json.loads((folder / RUN_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise InputError(f"{folder}: no run here (no readable {RUN_FILE}); `metakd run` makes one") from None
    if not isinstance(described, Mapping) or "settings" not in described:
        raise InputError(f"{folder}/{RUN_FILE}: not the description of a run")
    return dict(described)


def free_disk(folder: Path) -> int:
    """Bytes free where `folder` is or would be made."""
    return shutil.disk_usage(nearest(folder)).free


def nearest(folder: Path) -> Path:
    """The folder itself, or the closest one above it that is there."""
    return next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())


def fingerprint(*parts: Any) -> str:
    """SHA-256 of anything that JSON can write."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


def digest_files(folder: Path, patterns: Sequence[str]) -> dict[str, str]:
    """SHA-256 of each file of the folder that one of the patterns matches, by name."""
    found = {}
    for path in sorted({path for pattern in patterns for path in folder.glob(pattern)}):
        facts = path.stat()
        found[path.name] = _digest(path.resolve(), facts.st_mtime_ns, facts.st_size)
    return found


@cache
def _digest(path: Path, _changed: int, _size: int) -> str:
    """Read once a process, as long as the file stays as it is."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def environment() -> dict[str, Any]:
    """Versions, machine and command: what someone needs to know to repeat a result."""
    versions = {}
    for package in RECORDED_PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[package] = metadata.version(package)
    return {
        "python": platform.python_version(),
        "versions": versions,
        "system": f"{platform.system()} {platform.machine()}",
        "processor": processor_name(),
        "cores": os.cpu_count(),
        "commit": _commit(),
        "command": _command(),
    }


def _command() -> str:
    """As it is typed in a shell."""
    script = Path(sys.argv[0])
    program = ["python", "-m", script.parent.name] if script.name == "__main__.py" else [script.name]
    return shlex.join([*program, *sys.argv[1:]])


def _commit() -> str | None:
    """The commit of the source tree that this package runs from, if it runs from one."""
    try:
        return subprocess.run(
            ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=12"],
            capture_output=True,
            text=True,
            check=True,
            timeout=10,
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
