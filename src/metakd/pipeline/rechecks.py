"""Checks of finished models again, once dev has other rows than those they were checked on; the models stay."""

from itertools import product
from pathlib import Path
from typing import Any

from metakd.models.loading import load_classifier
from metakd.pipeline.checks import check_reloaded, checked_rows, is_checked, probe
from metakd.pipeline.teach import load_teacher
from metakd.runs.run import Run
from metakd.utils.artifacts import MANIFEST, read_manifest, verified_manifest, write_json
from metakd.utils.console import notice
from metakd.utils.hardware import device
from metakd.utils.locks import waiting_lock


def check_again(run: Run) -> None:
    """Bring the checks in the manifests of finished teachers and students up to date with the rows of dev."""
    teachers = [(teacher_run, teacher_run.folders.teacher, None) for teacher_run in run.teacher_runs]
    names = product(run.methods, (None, *run.data.domains))
    students = [(run, run.folders.student(method, domain), domain) for method, domain in names]
    outdated = [model for model in (*teachers, *students) if _is_outdated(*model[:2])]
    if not outdated:
        return
    notice(f"{run.folder}: dev has changed, so finished models are checked on it again; they stay as they are")
    with waiting_lock(run.folder / "checkpoints" / "checks.lock", "checks models"):
        for model in outdated:
            if _is_outdated(*model[:2]):  # another process may have been quicker
                _check(*model)


def _is_outdated(run: Run, folder: Path) -> bool:
    manifest = read_manifest(folder)
    return manifest is not None and not is_checked(manifest, run.data) and verified_manifest(folder) is not None


def _check(run: Run, folder: Path, domain: str | None) -> None:
    split, rows = checked_rows(run.data, domain)
    facts: dict[str, Any] = {}
    if folder == run.folders.teacher:
        teacher = load_teacher(run)
        model, tokenizer = teacher.encoder, run.features.tokenizer
        facts["domain_probe"] = probe(run, teacher, rows)
    else:
        model, tokenizer = load_classifier(folder).to(device()), run.features.student_tokenizer
    facts["check"] = check_reloaded(run, folder, model, tokenizer, rows, split)
    write_json(folder / MANIFEST, {**(read_manifest(folder) or {}), **facts})
