"""All steps: weigh -> teach -> distill -> evaluate. Each step writes its manifest last."""

import shutil
from typing import Any

from metakd.methods import METHODS
from metakd.pipeline.distill import distill_all
from metakd.pipeline.evaluate import check_scorable, evaluate
from metakd.pipeline.plan import check_disk
from metakd.pipeline.teach import teach
from metakd.pipeline.weigh import weigh
from metakd.runs.folders import REPORT_FILE, SCORE_FILES
from metakd.runs.run import Run
from metakd.training.trackers import LOGS_FOLDER
from metakd.utils import distributed
from metakd.utils.artifacts import MANIFEST, RUN_FILE
from metakd.utils.locks import refuse_if_any_locked, refuse_unrelated, run_lock


def clear(run: Run) -> None:
    """Remove what runs have left in the folder and nothing else; InputError if its files are not those of a run."""
    distributed.on_main(lambda: _clear(run))


def _clear(run: Run) -> None:
    folder = run.folder
    refuse_unrelated(folder)
    steps = [run.folders.weights, run.folders.teacher, run.folders.teacher_cache, folder / ".teacher_cache.partial"]
    shared = [run.folders.student(method, None) for method in METHODS]
    others = [folder / name for name in ("students", *METHODS, "shared_student", "checkpoints", LOGS_FOLDER)]
    with run_lock(folder):
        refuse_if_any_locked([run.folders.cache_lock, *(folder / "checkpoints").glob("*.lock")])
        (folder / MANIFEST).unlink(missing_ok=True)
        for path in (*steps, *shared, *others):
            shutil.rmtree(path, ignore_errors=True)
        for file in (*SCORE_FILES, REPORT_FILE, RUN_FILE):
            (folder / file).unlink(missing_ok=True)


def run_all(run: Run) -> dict[str, Any]:
    """Run every step that is not done; returns the content of results.json.

    Raises InputError if the disk has no room for it, or if another process uses the folder.
    """
    check_scorable(run)
    with run_lock(run.folder):
        distributed.on_main(lambda: check_disk(run))
        if run.settings.weights != "none":
            weigh(run)
        teach(run)
        distill_all(run, run.data.domains, run.methods)
        return evaluate(run)
