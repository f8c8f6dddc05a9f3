"""A page in which exported models classify what a visitor types, by transformers.js: nothing but files to serve."""

import base64
import hashlib
import json
import shutil
import subprocess  # nosec B404
import tarfile
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from metakd.utils.artifacts import write_text
from metakd.utils.errors import InputError

SOURCE = Path(__file__).with_name("web")
FOLDER, PAGE = "web.files", "index.html"  # a domain's folder has no dot in its name
OURS = ("page.css", "page.mjs", "classifier.mjs")


class Package(NamedTuple):
    """A package of npm: the name, the version, the SHA-512 of its archive, and the files that the page needs."""

    name: str
    version: str
    sha512: str  # in base64, as package-lock.json has it
    files: tuple[str, ...]


PACKAGES = (
    Package(
        "@huggingface/transformers",
        "4.3.2",
        "V3+dqf3iWlRYJ9I9GreM3zGQd0lAXnnoPeddmkOQYWAEE4l/+Fi6p7tx/qVUJlKQgLXGim2W76rTOzz+eC0i7g==",
        ("package/dist/transformers.min.js", "package/LICENSE"),
    ),
    Package(
        "onnxruntime-web",
        "1.31.0-dev.20260914-8d85527a0",
        "Iy7rtadoBgxS/LLvDr3QW38DB1PNXRnr0GJMcL0TAt7c9qjgVQl83UlGCVyeAnK2InpmW8Uc3PL8XIuqtDeF6g==",
        (
            "package/dist/ort-wasm-simd-threaded.asyncify.mjs",
            "package/dist/ort-wasm-simd-threaded.asyncify.wasm",
        ),
    ),
)


NOTICE = (
    f"transformers.min.js is {PACKAGES[0].name} {PACKAGES[0].version} (Apache License 2.0, transformers.LICENSE), "
    f"which includes ONNX Runtime. ort-wasm-simd-threaded.* are of {PACKAGES[1].name} {PACKAGES[1].version}, copyright "
    "Microsoft Corporation, under the MIT License: https://github.com/microsoft/onnxruntime/blob/main/LICENSE\n"
)


def fetch_library(folder: Path) -> None:
    """Put what the page needs of PACKAGES into `folder`.

    Raises:
        InputError: npm is missing or cannot fetch them, or an archive is not the one that is expected.
    """
    npm = shutil.which("npm")
    if npm is None:
        raise InputError("--web needs npm, which comes with Node.js; install that, or leave --web out")
    folder.mkdir(parents=True)
    for package in PACKAGES:
        with tempfile.TemporaryDirectory() as scratch:
            archive = _fetch(npm, package, Path(scratch))
            with tarfile.open(archive) as content:
                for name in package.files:
                    file = content.extractfile(name)
                    assert file is not None
                    target = (
                        f"{package.name.rpartition('/')[2]}.LICENSE" if name.endswith("LICENSE") else Path(name).name
                    )
                    (folder / target).write_bytes(file.read())


def _fetch(npm: str, package: Package, folder: Path) -> Path:
    """The archive of a package, checked."""
    wanted = f"{package.name}@{package.version}"
    command = [npm, "pack", "--loglevel=error", "--pack-destination", str(folder), wanted]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # nosec B603
    archives = [*folder.iterdir()]
    if done.returncode or len(archives) != 1:
        reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise InputError(f"--web: npm cannot fetch {wanted} ({reason}); check the connection, or leave --web out")
    digest = base64.b64encode(hashlib.sha512(archives[0].read_bytes()).digest()).decode("ascii")
    if digest != package.sha512:
        raise InputError(f"--web: {wanted} is not the archive that metakd was tested with; its SHA-512 is {digest}")
    return archives[0]


def write_page(output: Path, models: Mapping[str, str]) -> None:
    """Write the page beside the exported models, whose folders in `output` are `models` by domain."""
    write_text(output / FOLDER / "NOTICE", NOTICE)
    for name in OURS:
        shutil.copy(SOURCE / name, output / FOLDER)
    content = json.dumps(dict(models), ensure_ascii=False).replace("<", "\\u003c")
    write_text(output / PAGE, (SOURCE / PAGE).read_text(encoding="utf-8").replace("MODELS", content))
