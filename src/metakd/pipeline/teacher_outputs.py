"""The teacher's outputs for all training texts, computed once and read by every student."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from metakd.data.tokenization import Collator
from metakd.methods.base import Stage
from metakd.models.forward_passes import teacher_outputs_in_order
from metakd.models.loading import load_config
from metakd.models.meta_teacher import NO_LAYERS, TeacherLayers
from metakd.pipeline.student_jobs import StudentJob
from metakd.pipeline.teach import load_teacher
from metakd.runs.fingerprints import MODEL_FILES
from metakd.runs.run import Run
from metakd.training.teacher_cache import FORMAT, TeacherCache, fits, layer_bytes
from metakd.utils import distributed
from metakd.utils.artifacts import MANIFEST, digest_files, fingerprint, step_folder
from metakd.utils.console import console
from metakd.utils.locks import waiting_lock

# --- The teacher's memory -----------------------------------------------------------------------------------------


def layers_to_keep(stages: Sequence[Stage]) -> TeacherLayers:
    """The layers that `stages` match, if they go over the examples more than once; for one pass, live is cheaper."""
    matching = [stage for stage in stages if stage.layers]
    kept = NO_LAYERS
    if sum(stage.epochs for stage in matching) < 2:
        return kept
    for stage in matching:
        kept = kept.joined(stage.layers)
    return kept


def _memory(run: Run, jobs: Sequence[StudentJob]) -> TeacherCache:
    """What the teacher says of the training texts; a second process waits, and finds it made.

    Of all of them, and for all stages, whatever `lessons` are left to learn: which texts share a batch, and whether a
    layer is kept, decides the last bits, and a student that is made once more is to have those of the first.
    """
    methods = dict.fromkeys(job.method for job in jobs)
    layers = layers_to_keep([stage for method in methods for stage in run.stages[method]])
    with waiting_lock(run.cache_lock, "asks the teacher"):
        kept = distributed.on_main(lambda: _fill(run, layers))
        cache = TeacherCache(run.cache_folder, TeacherLayers(*map(tuple, kept)))
        distributed.barrier()
    return cache


def _fill(run: Run, layers: TeacherLayers) -> TeacherLayers:
    """Let the teacher speak once, unless a whole cache of this teacher, these texts and these layers is there.

    Gives the layers that the cache was made for.
    """
    folder, budget, facts = run.cache_folder, run.cache_budget, dict[str, Any]()
    weights = [digest_files(teacher_run.teacher_folder, MODEL_FILES) for teacher_run in run.teachers]
    mark = fingerprint("remember", FORMAT, weights, run.settings.max_length, run.precision, run.data.fingerprint)
    found = TeacherCache.find(folder, mark)
    if found is not None:  # what is made anew holds what was there as well
        layers = layers.joined(found.layers)
    examples = run.with_extra_texts(run.data.train)
    features = run.features(examples, run.tokenizer)
    sizes = layer_bytes(
        features.lengths, load_config(run.teachers[0].teacher_folder).hidden_size, layers, run.precision
    )
    fitting = fits(sizes, budget)
    if layers:
        console.print(
            f"teacher's layers: {sizes[fitting].sum() / 1e9:.2f} GB of disk for {fitting.sum()} of {len(examples)}"
            f" examples (budget {budget / 1e9:.1f} GB)" + "; the teacher stays live for the rest" * (not fitting.all()),
            highlight=False,
        )
    if found is not None and found.covers([e.id for e in examples], layers, fitting):
        return found.layers
    spoken = layers if fitting.any() else NO_LAYERS
    with step_folder(folder, "remember", mark, facts) as partial:
        teacher = load_teacher(run)
        said = teacher_outputs_in_order(teacher, features, Collator(run.tokenizer.pad_token_id), spoken, run.precision)
        TeacherCache.write(partial, [e.id for e in examples], said, spoken, fitting, run.precision)
        facts |= {"layers": layers}  # also where nothing fitted: they were thought of
    return layers


def drop_teacher_cache(run: Run) -> None:
    """Remove what was remembered, but for its manifest, which says how long it took and how much it was."""
    distributed.barrier()
    if not run.cache_folder.exists() or not distributed.is_main():
        return
    with waiting_lock(run.cache_lock, "asks the teacher"):  # one that still reads has all files mapped
        for path in run.cache_folder.glob("*"):
            if path.name != MANIFEST:
                path.unlink()
