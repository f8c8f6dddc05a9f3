"""What it takes to repeat a result: versions, machine, commit and command."""

import contextlib
import platform
import shlex
import subprocess
import sys
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from metakd.utils.hardware import machine

PACKAGES = ("metakd", "torch", "transformers", "tokenizers", "accelerate", "scikit-learn", "numpy", "onnxruntime")


def environment() -> dict[str, Any]:
    """Versions, machine, commit and command, as manifests record them."""
    versions = {}
    for package in PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[package] = metadata.version(package)
    return {
        "python": platform.python_version(),
        "versions": versions,
        "system": f"{platform.system()} {platform.machine()}",
        **machine(),
        "commit": _commit(),
        "command": _command(),
    }


def _command() -> str:
    """The command line, as it is typed in a shell."""
    script = Path(sys.argv[0])
    program = ["python", "-m", script.parent.name] if script.name == "__main__.py" else [script.name]
    return shlex.join([*program, *sys.argv[1:]])


@cache
def _commit() -> str | None:
    """The commit of the clone that this package runs from, if it runs from one; '-dirty' where that was changed."""
    git = ["git", "-C", str(Path(__file__).parent)]
    is_tracked = ["ls-files", "--error-unmatch", Path(__file__).name]  # a virtual environment in a repository is not
    try:
        for arguments in (is_tracked, ["describe", "--always", "--dirty", "--abbrev=12"]):
            done = subprocess.run([*git, *arguments], capture_output=True, text=True, check=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
