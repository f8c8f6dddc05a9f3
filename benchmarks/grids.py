"""The experiments of docs/evidence.md on one machine with a GPU: trial by trial, by several processes at once.

    python benchmarks/grids.py --amazon DIR [--unlabelled FILE] [--stsb DIR] --work FOLDER --output FOLDER
        [--processes 15] [--minutes 8] [--only main retention ...] [--config FILE]

Models this small leave most of a GPU idle, so each process trains one variant with one seed after the other, in the
order of `jobs`, until all is done or the minutes are over. A teacher is trained once for all variants.
The same command with the same folders goes on. FILE has settings for all of them (YAML).

OUTPUT/GROUP.jsonl has the rows of all trials that are finished. `metakd experiment` makes the report of them by
`--merge`, with the options that they were made with: CUT by --cut, SMALL for unseen, scarce-5 and scarce-20, LONG for
scarce-all-20, scarce-all-5 and unlabelled-20, the precision of the GPU; `tuned` belongs to main, with --tuned, `longer`
is main with --shared-epochs 10, `two-layers` is unlabelled with --student layers=2, and `stsb` is main of other data.
The rows of `retention` are for benchmarks/retention.py.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import time
import traceback
from collections import ChainMap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from itertools import product
from multiprocessing import TimeoutError as TimeIsUp
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import retention
from filelock import FileLock

from metakd import Settings, teach, weigh
from metakd.config.settings_file import read_settings_file
from metakd.data import tokenization
from metakd.data.dataset import MultiDomainDataset, load_dataset
from metakd.data.schema import Example, folder_name
from metakd.data.tokenization import Encoded, encode
from metakd.experiments.results_store import ResultsStore
from metakd.experiments.runner import experiment
from metakd.experiments.trial import Trial
from metakd.experiments.variants import EXPERIMENTS, with_tuned_settings
from metakd.inference import torch_backend
from metakd.methods import METHODS
from metakd.methods.base import has_teacher
from metakd.runs.run import Run
from metakd.utils.errors import InputError

CUT, FEW = (60, 10, 30), (20, 5, 75)
SEEDS = (0, 1, 2)
SMALL = (("windows", 0), ("shared_epochs", 2))  # where a variant has a teacher for each domain
LONG = (("teacher_epochs", 10),)  # where few texts are left
FIRST = ("meta_kd", "mix_kd", "single_kd", "metadistil", "mtl_kd", "fine_tuned_shared", "fine_tuned")
UNLABELLED = ("meta_kd", "meta_kd (no unlabelled text)", "self_trained")
STSB_VARIANTS = ("meta_kd", "meta_teacher_kd", "mix_kd", "single_kd", "shared", "fine_tuned_shared")


class Job(NamedTuple):
    """One variant of an experiment with one seed; of `retention` the seed is the fold."""

    group: str  # whose file its rows go into
    name: str
    variant: str
    seed: int
    changes: tuple[tuple[str, Any], ...] = ()
    source: str = "amazon"
    cut: tuple[int, ...] = CUT

    @property
    def slug(self) -> str:
        return folder_name("-".join(map(str, (self.group, self.variant, self.seed, *(v for _, v in self.changes)))))


def jobs() -> Iterator[Job]:
    """All there is to do, what matters most first."""

    def of(name: str, seeds: Sequence[int] = (0,), names: Sequence[str] = (), *more: Any, group: str = "") -> list[Job]:
        variants = names or dict.fromkeys(v.tunes or v.name for v in EXPERIMENTS[name](settings_of()))
        return [Job(group or name, name, variant, seed, *more) for variant, seed in product(variants, seeds)]

    def folds(variant: str, kind: str) -> list[Job]:
        return [Job("retention", "retention", variant, k, (("expertise", kind),)) for k in range(retention.FOLDS)]

    yield from folds("3 layers", "soft")
    yield from of("main", SEEDS, FIRST)  # few wait for a teacher of another, and the slow ones do not come last
    for changes, group in (((), "unlabelled"), ((("student", "layers=2"),), "two-layers")):
        for names in (UNLABELLED, ()):
            yield from of("unlabelled", SEEDS, names, changes, "unlabelled", group=group)
    yield from of("unlabelled-20", SEEDS, (), LONG)
    yield from folds("3 layers", "none")
    yield from of("main", SEEDS)
    yield from of("main", SEEDS, ("meta_kd",), (("shared_epochs", 10),), group="longer")
    yield from of("main", SEEDS, STSB_VARIANTS, (), "stsb", group="stsb")
    yield from folds("2 layers", "soft")
    yield from folds("2 layers", "none")
    yield from of("tune")
    yield from of("main", SEEDS[1:], group="tuned")
    yield from of("scarce-all-20", (0,), (), LONG)
    yield from of("scarce-all-5", (0,), (), LONG)
    yield from of("size")
    yield from of("unseen", (0,), (), SMALL)
    yield from of("ablation")
    for name in ("scarce-5", "scarce-20"):
        yield from of(name, SEEDS, ("meta_kd", "mix_kd", "fine_tuned_shared", "meta_teacher_kd"), SMALL)
        yield from of(name, SEEDS, ("meta_kd", "mix_kd"), SMALL, "amazon", FEW, group=f"{name}-few")


options = argparse.Namespace(config=None)  # of the command line, in each process


def begin_process(parsed: argparse.Namespace) -> None:
    """In each process: what it prints goes into a file of its own."""
    vars(options).update(vars(parsed))
    log = os.open(options.work / f"{os.getpid()}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    for module in (tokenization, torch_backend):  # on a GPU, tokenizing took a good part of each job
        vars(module)["encode"] = encode_once


tokens: dict[Any, Encoded] = {}


def encode_once(tokenizer: Any, examples: Sequence[Example], max_length: int) -> Encoded:
    """What `tokenization.encode` gives, cached: the jobs of a process need the same texts again and again."""
    vocabulary = hash(frozenset(tokenizer.get_vocab().items()))
    key = (vocabulary, max_length, *((e.text, e.text_pair) for e in examples))
    if key not in tokens:
        tokens[key] = encode(tokenizer, examples, max_length)
    return tokens[key]


def settings_of(changes: Sequence[tuple[str, Any]] = ()) -> Settings:
    return Settings.build((read_settings_file(options.config) if options.config else {}) | dict(changes))


@cache
def read(source: str, cut: tuple[int, ...]) -> MultiDomainDataset:
    if source == "unlabelled":
        data = load_dataset(str(options.amazon), unlabelled=str(options.unlabelled))
    else:
        data = load_dataset(str(vars(options)[source]))
    return data.resplit(*cut[1:]) if cut else data


def trials(job: Job, folder: Path, known: Mapping[str, Any]) -> list[Trial]:
    """Those of a job; several where it tunes. InputError for a tuned variant whose trials have no rows yet."""
    settings = settings_of(job.changes)
    if job.name == "retention":
        of_fold = retention.trials(read(job.source, ()), settings, job.seed, folder)
        return [trial for trial in of_fold if trial.variant.name == job.variant]
    data, variants = read(job.source, job.cut), EXPERIMENTS[job.name](settings)
    if job.group == "tuned":
        candidates = [v for v in EXPERIMENTS["tune"](settings) if v.tunes == job.variant]
        if not {Trial.of(v, 0, settings, data, folder).students for v in candidates} <= {*known}:
            raise InputError(f"{job.variant}: tune first")
        rows = [options.output / f"{name}.jsonl" for name in ("main", "tune")]
        tuned = experiment("tune", data, settings, folder / "tune", seeds=[0], only=[job.variant], merge=rows)
        variants = with_tuned_settings(EXPERIMENTS["main"], settings, tuned["best"][job.variant]["settings"])
    chosen = [v for v in variants if job.variant in (v.name, v.tunes)]
    return [Trial.of(variant, job.seed, settings, data, folder) for variant in chosen]


def lend_teacher(run: Run) -> None:
    """Give the run its teacher, which the first of all processes that needs it trains."""
    store = replace(run, folder=options.work / "teachers" / run.fingerprints.teach[:16])
    with FileLock(f"{store.folder}.lock"):
        if run.settings.weights != "none":
            weigh(store)
        teach(store)
    for source, target in ((store.folders.weights, run.folders.weights), (store.folders.teacher, run.folders.teacher)):
        if source.exists() and not target.exists():
            shutil.copytree(source, target, copy_function=os.link)


def rows_in(paths: Iterable[Path]) -> dict[str, dict[str, Any]]:
    """The rows of several files by key, those of the first file that has them."""
    return dict(ChainMap(*(ResultsStore(path).rows for path in paths)))


def do_job(job: Job) -> tuple[Job, float, str]:
    """Train and score what is missing of a job; the seconds it took, and what went wrong."""
    started, wrong = time.monotonic(), ""
    folder = options.work / "models" / job.slug
    store = ResultsStore(options.work / "rows" / job.group / f"{job.slug}.jsonl")
    shutil.rmtree(folder, ignore_errors=True)  # of a process that was ended
    try:
        known = rows_in(sorted(options.output.glob("*.jsonl"))) | store.rows
        for trial in trials(job, folder, known):
            if trial.keys <= known.keys():  # done before, or a variant of another experiment is the same
                for key in trial.keys - store.rows.keys():
                    store.add(known[key])
                continue
            if has_teacher(METHODS[trial.settings.method]):
                for run, _ in trial.parts:
                    for teacher_run in run.teacher_runs:
                        lend_teacher(teacher_run)
            for row in trial.rows(set(store.rows), ()):
                store.add(row)
    except Exception:
        wrong = traceback.format_exc(limit=-4)
    shutil.rmtree(folder, ignore_errors=True)
    return job, time.monotonic() - started, wrong


def gather() -> int:
    """Bring the rows of all jobs together by group, each once; how many there are."""
    count = 0
    for folder in (options.work / "rows").glob("*"):
        place = options.output / f"{folder.name}.jsonl"
        rows = rows_in(path for path in (place, *sorted(folder.glob("*.jsonl"))) if path.exists())
        partial = place.with_suffix(".partial")
        partial.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows.values()), "utf-8")
        partial.replace(place)
        count += len(rows)
    return count


def main() -> int:
    started, failed = time.monotonic(), 0
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("amazon", "work", "output"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--unlabelled", type=Path)
    parser.add_argument("--stsb", type=Path)
    parser.add_argument("--processes", type=int, default=15)
    parser.add_argument("--minutes", type=float, default=8.0)
    parser.add_argument("--only", nargs="+", help="groups")
    parser.add_argument("--config", type=Path)
    parser.parse_args(namespace=options)
    wanted = [*dict.fromkeys(jobs())]
    groups = [*dict.fromkeys(job.group for job in wanted)]
    if unknown := {*(options.only or ())}.difference(groups):
        parser.error(f"--only {' '.join(sorted(unknown))}: there are {', '.join(groups)}")
    os.environ |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}  # of the processes to come
    for folder in (options.work / "teachers", options.work / "rows", options.output):
        folder.mkdir(parents=True, exist_ok=True)
    todo = [job for job in wanted if vars(options)[job.source] and job.group in (options.only or (job.group,))]
    with get_context("spawn").Pool(options.processes, begin_process, (options,)) as pool:
        finished = pool.imap_unordered(do_job, todo)
        for done in range(1, len(todo) + 1):
            try:
                job, seconds, wrong = finished.next(timeout=max(0.1, started + 60 * options.minutes - time.monotonic()))
            except TimeIsUp:
                print(f"time is up: {done - 1} of {len(todo)} jobs", flush=True)
                break
            print(f"{time.monotonic() - started:.0f} s: {done} of {len(todo)}, {job.slug}, {seconds:.0f} s", flush=True)
            print(wrong, end="", flush=True)
            failed += bool(wrong)
            gather()
    print(f"{gather()} rows, {failed} jobs failed", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
