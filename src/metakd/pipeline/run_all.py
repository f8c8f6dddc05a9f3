"""All steps: weigh -> teach -> distill -> evaluate. Each step writes its manifest last."""

import shutil
from pathlib import Path
from typing import Any

from metakd.methods import METHODS
from metakd.pipeline.distill import distill_all
from metakd.pipeline.evaluate import check_scorable, evaluate
from metakd.pipeline.plan import check_disk
from metakd.pipeline.teach import score_as_it_is, teach
from metakd.pipeline.weigh import weigh
from metakd.runs.folders import REPORT_FILE, SCORE_FILES, SKIPPED_FILE, SUSPECTS_FILE
from metakd.runs.run import Run
from metakd.runs.starts import check_outside
from metakd.training.trackers import LOGS_FOLDER
from metakd.utils import distributed
from metakd.utils.artifacts import MANIFEST, RUN_FILE
from metakd.utils.locks import refuse_if_any_locked, refuse_unrelated, run_lock


def clear(run: Run) -> None:
    """Remove what runs have left in the folder and nothing else.

    Args:
        run: The run that will be made in the folder.

    Raises:
        InputError: The folder's files are not those of a run, or another process uses it.
    """
    distributed.on_main(lambda: _clear(run))


def _clear(run: Run) -> None:
    folder = run.folder
    refuse_unrelated(folder)
    check_outside(run.settings, folder)
    with run_lock(folder):
        refuse_if_any_locked([run.folders.cache_lock, *(folder / "checkpoints").glob("*.lock")])
        (folder / MANIFEST).unlink(missing_ok=True)
        for path in leftovers(run):
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)


def leftovers(run: Run) -> list[Path]:
    """What runs leave in the folder of a run, or in part: folders and files, which need not exist."""
    folder, folders = run.folder, run.folders
    steps = [folders.weights, folders.teacher, folders.unlabelled_weights, folders.teacher_cache]
    shared = [folder / f"{method}_shared_student" for method in METHODS]
    others = [folder / name for name in ("students", *METHODS, "shared_student", "checkpoints", LOGS_FOLDER)]
    others += [path.with_name(f".{path.name}.partial") for path in (*steps, *shared, folder / "shared_student")]
    files = (*SCORE_FILES, REPORT_FILE, SKIPPED_FILE, SUSPECTS_FILE, RUN_FILE)
    return [*steps, *shared, *others, *(folder / file for file in files)]


def run_all(run: Run) -> dict[str, Any]:
    """The scores of a run, after every step that was not done.

    Args:
        run: The run, begun.

    Returns:
        The content of results.json, as from `evaluate`.

    Raises:
        InputError: A domain cannot be scored, the disk has no room, another process uses the folder, or the teacher is
            near chance.
        CheckError: A reloaded model predicts differently.
    """
    check_scorable(run)
    with run_lock(run.folder):
        distributed.on_main(lambda: check_disk(run, run.folder))
        distributed.on_main(lambda: score_as_it_is(run))
        if run.settings.weights != "none":
            weigh(run)
        teach(run)
        distill_all(run, run.data.domains, run.methods)
        return evaluate(run)
