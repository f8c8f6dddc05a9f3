"""What a run takes alone on a GPU, where the time goes, and what would shorten it: one call of some minutes.

    python benchmarks/gpu.py --data DIR --work FOLDER --output FILE [--minutes 12] [--base DIR] [--config FILE]
        [--batches 64 128 256]

First the steps of a run with the defaults, or with the settings of --config (YAML). Then students of its teacher, for
fewer epochs: as they are, profiled, with a live teacher in the place of its cache, in larger batches, and compiled.
FILE is written after each of these items, none begins once the minutes are over, and the same command goes on after
those that are in FILE.

Of each training, the first step is counted and the others are timed, from the start of one to the start of the next:
`flops_per_step` has the operations of that first step for each of its tokens, times the tokens of a mean step (all with
padding; a live teacher counts, a cached one does not). `share_of_peak` is null for a card that PEAKS does not list.
`profile` has shares of the time of a step: `kernels` is what the GPU computed, `waiting` what the CPU waited for it.

What travels to a lent machine may be limited, for instance to 64 MiB. all-MiniLM-L6-v2 has 91 MB, but 46 in float16,
which is read as float32 again. With MODEL = resolve("sentence-transformers/all-MiniLM-L6-v2") of metakd.models.hub,
this makes a folder for --base:

    AutoModel.from_pretrained(MODEL, dtype="float16").save_pretrained("minilm")
    AutoTokenizer.from_pretrained(MODEL).save_pretrained("minilm")
"""

import argparse
import contextlib
import json
import shutil
import sys
import time
import traceback
from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple
from unittest.mock import patch

import torch
from torch.autograd import DeviceType
from torch.profiler import profile, record_function, schedule
from torch.utils.flop_counter import FlopCounterMode

from metakd import Run, Settings
from metakd.cli.assembly import load_library
from metakd.config.settings_file import read_settings_file
from metakd.pipeline import distill
from metakd.pipeline.evaluate import evaluate
from metakd.pipeline.run_all import clear
from metakd.pipeline.teach import teach
from metakd.pipeline.weigh import weigh
from metakd.training.teacher_cache import TeacherCache
from metakd.training.trainer import _Trainer
from metakd.utils.artifacts import read_manifest, write_json
from metakd.utils.hardware import device, environment

# Dense bfloat16 operations a second, from NVIDIA's data sheets, which state twice as many for sparse matrices
PEAKS = {
    "NVIDIA H200": 989e12,
    "NVIDIA H100 80GB HBM3": 989e12,
    "NVIDIA H100 PCIe": 756e12,
    **dict.fromkeys(("NVIDIA A100-SXM4-40GB", "NVIDIA A100-SXM4-80GB", "NVIDIA A100 80GB PCIe"), 312e12),
}
SHORT = {"shared_epochs": 2, "predict_epochs": 1, "windows": 0, "baseline": False, "track": "none"}
PROFILED = {"wait": 8, "warmup": 2, "active": 10, "repeat": 1}  # steps
REGIONS = {"data": "enumerate(DataLoader)", "teacher cache": "teacher cache", "optimizer": "Optimizer.step"}
OPERATIONS = 10  # that a profile names


class Step(NamedTuple):
    """One update of a training, from its start on."""

    started: float
    examples: int
    tokens: int  # with padding


class Trainings:
    """The steps of trainings by their names, and the floating-point operations of the first step of each."""

    def __init__(self) -> None:
        self.steps: dict[str, list[Step]] = defaultdict(list)
        self.flops: dict[str, int] = {}

    @contextlib.contextmanager
    def recorded(self, each_step: Callable[[], None] = lambda: None) -> Iterator[None]:
        """Record all that is trained inside, and call `each_step` at the start of each step."""
        original = _Trainer.training_step

        def training_step(trainer: Any, model: Any, batch: Any, *rest: Any) -> Any:
            name, size = trainer._name, batch["input_ids"].shape
            self.steps[name].append(Step(time.perf_counter(), size[0], size.numel()))
            each_step()
            if name in self.flops:
                return original(trainer, model, batch, *rest)
            with FlopCounterMode(display=False) as counter:
                loss = original(trainer, model, batch, *rest)
            self.flops[name] = counter.get_total_flops()
            return loss

        with patch.object(_Trainer, "training_step", training_step):
            yield

    def figures(self) -> dict[str, dict[str, Any]]:
        return {name: self._figures(steps, self.flops[name] / steps[0].tokens) for name, steps in self.steps.items()}

    def _figures(self, steps: list[Step], flops_per_token: float) -> dict[str, Any]:
        intervals = [after.started - before.started for before, after in pairwise(steps[1:])]
        if not intervals:
            return {"steps": len(steps)}
        timed, seconds, peak = steps[1:-1], sum(intervals), peak_flops()
        flops = flops_per_token * sum(step.tokens for step in timed)
        return {
            "steps": len(steps),
            "first_step_seconds": steps[1].started - steps[0].started,
            "seconds_per_step": median(intervals),
            "examples_per_second": sum(step.examples for step in timed) / seconds,
            "tokens_per_step": sum(step.tokens for step in timed) / len(timed),
            "flops_per_step": flops / len(timed),
            "share_of_peak": flops / seconds / peak if peak else None,
        }


def peak_flops() -> float | None:
    return PEAKS.get(torch.cuda.get_device_name()) if torch.cuda.is_available() else None


# --- Items -------------------------------------------------------------------------------------------------------


def items_of(run: Run, work: Path, batches: list[int]) -> dict[str, Callable[[], dict[str, Any]]]:
    """What there is to measure, the most important first, by name."""
    students = partial(train_students, run, work)
    return {
        "weigh": lambda: recorded(lambda: weigh(run)),
        "teach": lambda: recorded(lambda: teach(run)),
        **{f"distill {method}": partial(recorded, partial(distill_by, run, method)) for method in run.methods},
        "evaluate": lambda: recorded(lambda: evaluate(run)),
        "students": students,
        "students, profiled": lambda: profiled(students),
        "students, live teacher": partial(students, cache_budget=0),
        **{f"students, batch {size}": partial(students, batch_size=size) for size in batches},
        "students, compiled": lambda: compiled(students),
    }


def recorded(action: Callable[[], Any], *each_step: Callable[[], None]) -> dict[str, Any]:
    """The seconds that `action` takes, with figures of its trainings."""
    trainings, started = Trainings(), time.perf_counter()
    with trainings.recorded(*each_step):
        action()
    return {"seconds": time.perf_counter() - started, "trainings": trainings.figures()}


def distill_by(run: Run, method: str) -> None:
    distill.distill_all(run, run.data.domains, [method])


def train_students(run: Run, work: Path, *each_step: Callable[[], None], **changes: Any) -> dict[str, Any]:
    """A shared start and the first domain's student, by the teacher of `run`; with the seconds of its cache."""
    folder, settings = work / "students", Settings.build(run.settings.model_dump() | SHORT | changes)
    shutil.rmtree(folder, ignore_errors=True)
    short = Run(folder, settings, run.data, other_teachers=(run,))
    weigh(short)
    result = recorded(lambda: distill.distill(short, short.data.domains[0]), *each_step)
    manifest = read_manifest(short.folders.teacher_cache)
    return result | {"cache_seconds": manifest["seconds"] if manifest else None}


def compiled(students: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """The same with compiled students; compiling is in the seconds."""
    fit = distill.fit

    def fit_compiled(learner: Any, *rest: Any) -> Any:
        with patch.object(learner.student, "forward", torch.compile(learner.student.forward, dynamic=True)):
            return fit(learner, *rest)

    with patch.object(distill, "fit", fit_compiled):
        return students()


def profiled(students: Callable[[Callable[[], None]], dict[str, Any]]) -> dict[str, Any]:
    """The same with a profile of some steps of the shared start."""
    read = record_function("teacher cache")(TeacherCache.read)
    with patch.object(TeacherCache, "read", read), profile(schedule=schedule(**PROFILED)) as profiler:
        result = students(profiler.step)
    return result | {"profile": shares(profiler.key_averages())}


def shares(events: Any) -> dict[str, Any]:
    """Shares of the profiled steps' time; the operations are those with most time on the GPU, or on the CPU alone."""
    on_gpu = [e for e in events if e.device_type != DeviceType.CPU and not e.is_user_annotation]
    on_cpu = [e for e in events if e.device_type == DeviceType.CPU]
    whole = sum(e.cpu_time_total for e in on_cpu if e.key.startswith("ProfilerStep"))  # microseconds

    def operations_time(event: Any) -> float:
        return event.self_device_time_total if on_gpu else event.self_cpu_time_total

    operations = sorted((e for e in on_cpu if e.key.startswith("aten::")), key=operations_time, reverse=True)
    return {
        "seconds": whole / 1e6,
        "kernels": sum(e.self_device_time_total for e in on_gpu) / whole,
        "waiting": sum(e.self_cpu_time_total for e in on_cpu if e.key.endswith("Synchronize")) / whole,
        **{
            name: sum(e.cpu_time_total for e in on_cpu if e.key.startswith(start)) / whole
            for name, start in REGIONS.items()
        },
        "operations": {e.key: {"share": operations_time(e) / whole, "calls": e.count} for e in operations[:OPERATIONS]},
    }


def measured(item: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """The item's figures with the most memory on the GPU, or what went wrong, so that the next item has its turn."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    try:
        result = item()
    except Exception:
        return {"error": traceback.format_exc(limit=-4)}
    return result | ({"gpu_bytes": torch.cuda.max_memory_allocated()} if torch.cuda.is_available() else {})


def main() -> int:
    started = time.monotonic()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=12.0)
    parser.add_argument("--base", help="folder of the encoder")
    parser.add_argument("--config", type=Path)
    parser.add_argument("--batches", nargs="*", type=int, default=[64, 128, 256])
    options = parser.parse_args()
    load_library()
    changes = read_settings_file(options.config) if options.config else {}
    changes |= {"base": options.base} if options.base else {}
    run = Run.assemble(options.work / "run", Settings.build(changes), options.data)
    results = json.loads(options.output.read_text(encoding="utf-8")) if options.output.exists() else {}
    done = {name: figures for name, figures in results.get("items", {}).items() if "error" not in figures}
    if "evaluate" not in done:  # the steps of a run are measured together
        done = {}
        clear(run)
    run.begin()
    torch.zeros((), device=device())  # so that the first item does not wait for CUDA to start
    for name, item in items_of(run, options.work, options.batches).items():
        if name not in done and time.monotonic() - started < 60 * options.minutes:
            done[name] = measured(item)
            print(f"{time.monotonic() - started:.0f} s: {name}", done[name].get("error", ""), flush=True)
        around = {
            "run": run.description() | {"data": None},
            "peak_flops_per_second": peak_flops(),
            "environment": environment(),
        }
        write_json(options.output, {"items": done, **around})
    return 1 if any("error" in figures for figures in done.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
