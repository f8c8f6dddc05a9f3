"""Files that are complete or absent: written under a temporary name, then renamed, with the manifest last."""

import contextlib
import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from metakd.utils import distributed
from metakd.utils.console import notice
from metakd.utils.errors import InputError, shell_command
from metakd.utils.hardware import environment

MANIFEST, RUN_FILE = "manifest.json", "run.json"
RUN_FORMAT = 2  # of run.json; earlier formats name settings differently
# what runs did before there was the setting
FORMERLY = {"long_texts": "first", "cut": "80/10/10", "teacher_tries": 1, "labels": "shared"}
STEP_VERSIONS = {"weigh": 1, "teach": 1, "distill": 1, "fit": 10}  # in their order; see tools/step_versions.py


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path` atomically: if the machine stops, the file has all of it or its previous content."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.partial")
    try:
        temporary.write_text(text, encoding="utf-8")
        move_into_place(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def move_into_place(temporary: Path, path: Path) -> None:
    """Rename a finished file or folder durably: first its content reaches the disk, then the new name."""
    _sync(temporary)
    temporary.replace(path)
    _sync(path.parent)


def write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


@contextlib.contextmanager
def step_folder(folder: Path, step: str, fingerprint: str, facts: Mapping[str, Any]) -> Iterator[Path]:
    """A temporary folder for a step's results; it gets a manifest and is renamed to `folder` when the step succeeds.

    `facts` may grow while the step runs; the manifest records their final state. If there are several processes,
    only the main one creates the folder and may write.
    """
    temporary = folder.with_name(f".{folder.name}.partial")
    if not distributed.is_main():
        yield temporary
        return
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    started = datetime.now(UTC)
    try:
        yield temporary
        head = {"step": step, "versions": versions_up_to(step), "fingerprint": fingerprint, **facts}
        head["started"] = started.isoformat(timespec="seconds")
        seconds = round((datetime.now(UTC) - started).total_seconds(), 1)
        write_manifest(temporary, {**head, "seconds": seconds, "environment": environment()})
        shutil.rmtree(folder, ignore_errors=True)
        move_into_place(temporary, folder)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def write_manifest(folder: Path, facts: Mapping[str, Any], names: Sequence[str] = ()) -> None:
    """Flush the folder's files (or only `names`) to disk, then write a manifest with their checksums."""
    paths = [folder / name for name in names] or sorted(path for path in folder.rglob("*") if path.is_file())
    files = {path.relative_to(folder).as_posix(): path for path in paths if path.name != MANIFEST}
    for path in {*files.values(), *(path.parent for path in files.values())}:
        _sync(path)
    write_json(folder / MANIFEST, {**facts, "files": {name: _digest(path) for name, path in files.items()}})


def _sync(path: Path) -> None:
    """Wait until a file, or a folder's entries, are on disk."""
    if path.is_dir() and os.name == "nt":  # Windows writes names at once, and cannot open folders
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """The manifest of a finished step, or None if it is missing or damaged."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, ValueError):  # not every OSError: a failing disk may hold it
        return None
    return manifest if isinstance(manifest, dict) else None


def changed_files(folder: Path, manifest: Mapping[str, Any]) -> list[str]:
    """Files of a finished step that are missing or differ from its manifest."""
    files = manifest.get("files")
    if not isinstance(files, Mapping):
        return [MANIFEST]
    return [n for n, digest in files.items() if not (folder / n).is_file() or _digest(folder / n) != digest]


def verified_manifest(folder: Path) -> dict[str, Any] | None:
    """The manifest of a step whose files match it; None if the step is unfinished, with a notice if files differ."""
    manifest = read_manifest(folder)
    changed = changed_files(folder, manifest) if manifest else []
    if changed:
        notice(f"{folder} counts as unfinished, because files are missing or changed: {', '.join(changed)}")
    return None if changed else manifest


def versions_up_to(step: str) -> dict[str, int]:
    """The versions of the code of a step and of the steps before it; none for what is not in STEP_VERSIONS."""
    steps = list(STEP_VERSIONS)
    return {name: STEP_VERSIONS[name] for name in steps[: steps.index(step) + 1]} if step in STEP_VERSIONS else {}


def changed_code(manifest: Mapping[str, Any]) -> list[str]:
    """The steps behind a manifest whose code has changed since; all of them where it names no versions."""
    before, now = manifest.get("versions"), versions_up_to(str(manifest.get("step")))
    return [step for step in now if not isinstance(before, Mapping) or before.get(step) != now[step]]


def is_done(folder: Path, expected: str) -> bool:
    """Whether a step's result exists and is complete; InputError if something else made it [`refuse_other`]."""
    refuse_other(folder, expected)
    return verified_manifest(folder) is not None


def refuse_other(folder: Path, expected: str) -> None:
    """Raise InputError if a step's result was made with other settings or data, or by other code; reads no models."""
    manifest = read_manifest(folder)
    if manifest is None or manifest.get("fingerprint") == expected:
        return
    if steps := changed_code(manifest):
        raise InputError(
            f"metakd's code of {', '.join(steps)} has changed since {folder} was made. Choose another --output, repeat "
            f"`metakd run` with --overwrite and all its flags, or go on with the version of metakd that its {MANIFEST} "
            "names"
        )
    raise InputError(
        f"{folder} was made with other settings, data, base or precision. Choose another --output, or repeat "
        "`metakd run` with --overwrite and all its flags"
    )


def read_run(folder: Path) -> dict[str, Any]:
    """The description that `Run.begin` wrote into the folder; InputError if another version of metakd wrote it."""
    try:
        description = json.loads((folder / RUN_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise InputError(f"{folder}: no run here (no readable {RUN_FILE}); start one with `metakd run`") from None
    if not isinstance(description, dict) or "settings" not in description:
        raise InputError(f"{folder}/{RUN_FILE}: does not describe a run; repeat `metakd run` with --overwrite")
    if description.get("format") != RUN_FORMAT:
        raise InputError(
            f"{folder}: made by another version of metakd, which names settings differently; choose another --output, "
            "or repeat `metakd run` with --overwrite and all its flags"
        )
    for name, value in FORMERLY.items():
        description["settings"].setdefault(name, value)
    return description


def remedy(folder: Path, step: str = "run", data: str | None = None) -> str:
    """What takes a run further, in words: a command, or Python if its data is tables in memory.

    Args:
        folder: The run's.
        step: One that is missing, or `run` for all that are.
        data: Where the run's data is, which a folder that has no run yet does not know.
    """
    begun = (folder / RUN_FILE).is_file()
    if (read_run(folder)["data"] if begun else data) is None:
        return "continue from Python, with the same tables"
    if step == "evaluate":
        return f"run {shell_command(step, folder)}"
    flags = ["--resume"] * (step == "run") + [f"--data={data}"] * (not begun)
    others = "" if begun else " (with the other flags of your command)"
    return f"run {shell_command(step, *flags, '--output', folder)}{others}"


def free_disk(folder: Path) -> int:
    """Free bytes on the disk of `folder`, which need not exist yet."""
    return shutil.disk_usage(nearest_existing(folder)).free


def reserve(path: Path, size: int) -> None:
    """Create a file with `size` bytes allocated on disk; OSError if there is no room for them."""
    with path.open("wb") as file:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, size)
        elif size > free_disk(path.parent):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))


def nearest_existing(folder: Path) -> Path:
    """The folder itself, or its closest parent that exists."""
    return next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())


def fingerprint(*parts: Any) -> str:
    """SHA-256 of anything that JSON can write."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


def digest_files(folder: Path, patterns: Sequence[str]) -> dict[str, str]:
    """SHA-256, by name, of each file in the folder that matches one of the patterns."""
    paths = sorted({path for pattern in patterns for path in folder.glob(pattern)})
    return {path.name: _digest(path) for path in paths}


def _digest(path: Path) -> str:
    facts = path.stat()
    return _cached_digest(path.resolve(), facts.st_mtime_ns, facts.st_size)


@cache
def _cached_digest(path: Path, _changed: int, _size: int) -> str:
    """SHA-256 of a file, computed once per process unless its modification time or size changes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
