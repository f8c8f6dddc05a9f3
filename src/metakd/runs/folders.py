"""Where the results of a run are: its folders, and the files in them that several steps use."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from metakd.data.schema import folder_name
from metakd.methods import BASELINE
from metakd.runs.fingerprints import Fingerprints
from metakd.utils.artifacts import MANIFEST, read_manifest

WEIGHTS_FILE, EXTRAS_FILE = "weights.jsonl", "extras.safetensors"  # the latter: projections and h of a shared start
ADAPTER = "adapter"  # folder in the meta-teacher's, of what LoRA has learnt
RESULTS_FILE, PREDICTIONS_FILE, CORPUS_FILE = "results.json", "predictions.jsonl", "corpus.json"
REPORT_FILE, SKIPPED_FILE, SUSPECTS_FILE = "report.html", "skipped_rows.txt", "suspects.csv"
SCORE_FILES = (RESULTS_FILE, "results.md", PREDICTIONS_FILE, CORPUS_FILE)  # what `evaluate` writes


@dataclass(frozen=True)
class Folders:
    """The folders of a run whose method is `method`.

    With `by_content`, their names contain a fingerprint, so that runs can share what they have in common.
    """

    root: Path
    fingerprints: Fingerprints
    method: str
    by_content: bool

    @property
    def weights(self) -> Path:
        return self._place("instance_weights", self.fingerprints.weigh)

    @property
    def unlabelled_weights(self) -> Path:
        return self._place("unlabelled_weights", self.fingerprints.unlabelled)

    @property
    def teacher(self) -> Path:
        return self._place("meta_teacher", self.fingerprints.teach)

    def student(self, method: str, domain: str | None) -> Path:
        """The folder of a student: in `students` for the run's method, in a folder of its name for a baseline.

        Without a domain: that of the shared start, from which all of the method's students start.
        """
        if domain is None:
            name = "shared_student" if method == self.method else f"{method}_shared_student"
        else:
            name = f"{'students' if method == self.method else method}/{folder_name(domain)}"
        return self._place(name, self.fingerprints.distill(method, domain))

    @property
    def teacher_cache(self) -> Path:
        """The teacher's outputs for all training texts, while students learn from them."""
        return self._place("teacher_cache", self.fingerprints.teach)

    @property
    def cache_lock(self) -> Path:
        return self.teacher_cache.with_suffix(".lock")

    def checkpoints(self, name: str, digest: str) -> Path:
        """Checkpoints of an unfinished step; the digest separates them from those of other settings."""
        return self.root / "checkpoints" / f"{name}-{digest[:12]}"

    def _place(self, name: str, digest: str) -> Path:
        return self.root / (f"{name}-{digest[:16]}" if self.by_content else name)


def finished_steps(folder: Path, settings: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The manifests of a run's own steps, by their folders: exports may be kept in its folder as well."""
    names = ["instance_weights", "unlabelled_weights", "meta_teacher", "teacher_cache", "shared_student", "students/*"]
    if settings["baseline"] and settings["method"] != BASELINE:
        names += [f"{BASELINE}_shared_student", f"{BASELINE}/*"]
    paths = sorted(path.parent for name in names for path in folder.glob(f"{name}/{MANIFEST}"))
    steps = {path.relative_to(folder).as_posix(): read_manifest(path) for path in paths if path.name[0] != "."}
    whole = {name: manifest for name, manifest in steps.items() if manifest}
    return {name: whole[name] for name in sorted(whole, key=lambda name: name.count("/"))}
