"""The teacher's outputs for all training texts, computed once and read by every student."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from functools import reduce

import torch
from torch import Tensor

from metakd.evaluation.suspects import write_suspects
from metakd.methods.base import Stage
from metakd.models.forward_passes import teacher_outputs_in_order
from metakd.models.loading import load_config
from metakd.models.meta_teacher import NO_LAYERS, TeacherLayers
from metakd.pipeline.teach import load_teacher
from metakd.pipeline.weigh import weigh_unlabelled
from metakd.prototypes import domain_centres, prototypes
from metakd.runs.fingerprints import MODEL_FILES
from metakd.runs.folders import SUSPECTS_FILE
from metakd.runs.run import Run
from metakd.training.teacher_cache import FORMAT, TeacherCache, fits, layer_bytes
from metakd.utils import distributed
from metakd.utils.artifacts import MANIFEST, STEP_VERSIONS, digest_files, fingerprint, step_folder
from metakd.utils.console import console, notice
from metakd.utils.locks import waiting_lock

WAITING_FOR = "computes the teacher's outputs"


def layers_to_keep(stages: Sequence[Stage]) -> TeacherLayers:
    """The layers to cache: those that `stages` match in more than one epoch; for a single one, live is cheaper.

    Pooled layers are cached in any case, as logits are.
    """
    matching = [stage for stage in stages if stage.layers]
    all_layers = reduce(TeacherLayers.joined, (stage.layers for stage in stages), NO_LAYERS)
    if sum(stage.epochs for stage in matching) < 2:
        return TeacherLayers(pooled=all_layers.pooled)
    return all_layers


def open_teacher_cache(run: Run, methods: Sequence[str]) -> TeacherCache:
    """The teacher's outputs for the training texts; a second process waits until they are complete.

    They cover all texts and all stages of the methods, whichever students are missing: which texts share a batch, and
    whether a layer is cached, decides the last bits, and a student that is trained again must get the same bits.
    """
    layers = layers_to_keep([stage for method in methods for stage in run.stages[method]])
    with waiting_lock(run.folders.cache_lock, WAITING_FOR):
        cache = TeacherCache(run.folders.teacher_cache, distributed.on_main(lambda: _fill(run, layers)))
        if run.data.unlabelled and run.settings.weights != "none":
            texts = [e.id for e in run.data.unlabelled]
            distributed.on_main(lambda: weigh_unlabelled(run, lambda: cache.logits(cache.rows(texts))))
        if not run.by_content:  # a folder of its own
            distributed.on_main(lambda: _write_suspects(run, cache))
        distributed.barrier()
    return cache


def _write_suspects(run: Run, cache: TeacherCache) -> None:
    gold = run.data.gold
    logits = cache.logits(cache.rows([e.id for e in gold]))
    write_suspects(run.folder / SUSPECTS_FILE, gold, *run.features.likeliest(logits, gold), run.data.labels)


def centres_in_h(run: Run, cache: TeacherCache) -> Tensor:
    """The mean of each domain's prototypes in the teacher's h, (K, H), of `data.gold` and windows of these texts."""
    texts = run.features.student_texts
    labels, ids = run.features.encode(texts).column("labels"), run.data.domain_ids
    h = cache.read(torch.tensor(cache.rows([e.id for e in texts])), NO_LAYERS).representation
    domains, sizes = torch.tensor([ids[e.domain] for e in texts]), (len(run.data.labels), len(ids))
    return domain_centres(prototypes(h, labels, domains, *sizes, run.features.are_gold(texts)))


def unsure_texts(run: Run, cache: TeacherCache) -> set[str]:
    """The ids of texts without labels that --min-confidence and --max-share leave out, by the teacher's outputs."""
    settings, texts = run.settings, run.data.unlabelled
    if not texts or (settings.min_confidence, settings.max_share) == (0, 1):
        return set()
    confidences, labels = run.features.likeliest(cache.logits(cache.rows([e.id for e in texts])), texts)
    sure = [
        i
        for i in confidences.argsort(descending=True, stable=True).tolist()
        if confidences[i] >= settings.min_confidence
    ]
    kept = set[str]() if settings.max_share < 1 else {texts[i].id for i in sure}
    by_domain = defaultdict[str, list[int]](list)
    for i in sure:
        by_domain[texts[i].domain].append(i)
    for domain, places in by_domain.items() if settings.max_share < 1 else ():
        classes = len(run.features.places(domain))
        left = largest_counts(Counter(labels[places].tolist()), settings.max_share, classes)
        for i in places:  # the surest first
            if left[label := int(labels[i])]:
                left[label] -= 1
                kept.add(texts[i].id)
    notice(f"--min-confidence and --max-share keep {len(kept):,} of {len(texts):,} texts without labels")
    return {e.id for e in texts} - kept


def largest_counts(counts: Mapping[int, int], share: float, classes: int) -> dict[int, int]:
    """The largest counts, each at most those given, of which none is more than `share` of their sum.

    A share that so few classes as occur cannot all stay below is raised to that of equal counts. But of a single one
    nothing is left, unless a domain has no other of its `classes`: its teacher has the same answer for all texts.
    """
    share = max(share, 1 / min(classes, max(2, len(counts))))
    total, before = sum(counts.values()), -1
    while total != before:
        most, before = int(share * total + 1e-9), total
        total = sum(min(count, most) for count in counts.values())
    return {label: min(count, most) for label, count in counts.items()}


def _fill(run: Run, layers: TeacherLayers) -> TeacherLayers:
    """Run the teacher once, unless a complete cache of this teacher, these texts and these layers exists.

    Returns the layers that the cache was made for.
    """
    folder, budget = run.folders.teacher_cache, run.cache_budget
    weights = [digest_files(teacher_run.folders.teacher, MODEL_FILES) for teacher_run in run.teacher_runs]
    texts = [run.settings.max_length, run.data.train_fingerprint]
    texts += [run.data.unlabelled_fingerprint] if run.data.unlabelled else []
    digest = fingerprint("teacher_outputs", FORMAT, STEP_VERSIONS["distill"], weights, texts, run.precision)
    cached = TeacherCache.find(folder, digest)
    if cached is not None:  # a new cache holds all that the old one held
        layers = layers.joined(cached.layers)
    examples = run.features.student_texts
    ids, features = [e.id for e in examples], run.features.encode(examples)
    width = load_config(run.teacher_runs[0].folders.teacher).hidden_size
    sizes = layer_bytes(features.lengths, width, layers, run.precision)
    fitting = fits(sizes, budget)
    if layers:
        console.print(
            f"teacher cache: {sizes[fitting].sum() / 1e9:.2f} GB of layers for {fitting.sum()} of {len(examples)} texts"
            f" (budget {budget / 1e9:.1f} GB)" + "; the teacher runs in every epoch for the rest" * (not fitting.all()),
            highlight=False,
        )
    if cached is not None and cached.covers(ids, layers, fitting):
        return cached.layers
    written = layers if fitting.any() else TeacherLayers(pooled=layers.pooled)
    facts = {"layers": layers}  # also those that did not fit, so that they are not tried again
    with step_folder(folder, "teacher_outputs", digest, facts) as partial:
        teacher, collator = load_teacher(run), run.features.collator
        outputs = teacher_outputs_in_order(teacher, features, collator, written, run.precision)
        TeacherCache.write(partial, ids, outputs, written, fitting, run.precision)
    return layers


def drop_teacher_cache(run: Run) -> None:
    """Remove the teacher's outputs except the manifest, which says how long they took and which layers they had."""
    distributed.barrier()
    if not run.folders.teacher_cache.exists() or not distributed.is_main():
        return
    with waiting_lock(run.folders.cache_lock, WAITING_FOR):  # a process that still reads has all files mapped
        for path in run.folders.teacher_cache.glob("*"):
            if path.name != MANIFEST:
                path.unlink()
