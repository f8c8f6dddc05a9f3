"""Kill real runs at moments spread over every step, go on, and compare with a run that was never stopped.

    python benchmarks/kills.py [--moments 24] [--signal KILL TERM INT] [--chain] [--write]

A moment is an update, or an opening, renaming or removal of a file of the run, plus up to 20 milliseconds; each step
has its share of them. Training saves itself at every fourth update, instead of every half minute. Each moment has a run
of its own, or with --chain all of them strike one run, one after the other. Processes are forked from one that has
imported what `metakd` imports; encoder and corpus are the tiny ones of the tests. Prints JSON, which --write puts into
benchmarks/results/kills.json.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import re
import runpy
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import cycle, islice
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch.optim.optimizer import register_optimizer_step_post_hook

from metakd.cli.assembly import load_library
from metakd.cli.main import main as metakd
from metakd.methods import BASELINE
from metakd.pipeline import evaluate, reproduce  # noqa: F401 - these and all below: imported once
from metakd.pipeline.reproduce import VOLATILE, compare
from metakd.training import checkpointing
from metakd.utils.hardware import environment

RESULTS, TESTS = Path(__file__).parent / "results" / "kills.json", Path(__file__).parents[1] / "tests"
SAVED_EVERY = 4  # updates
LATEST = 0.02  # seconds after a moment
EVENTS = ("open", "os.rename", "os.remove", "os.mkdir")
PATTERNS = {  # of the files that a phase begins with; the last phase first
    "score": r"^\.?(predictions|corpus|results|manifest)",
    "baseline": rf"(^|/)\.?{BASELINE}",
    "students": "^students",
    "shared start": "shared_student",
    "write the teacher cache": "teacher_cache.partial",
    "save the teacher": "^.meta_teacher.partial/",
    "teach": "meta_teacher",
    "weigh": "",
}
PHASES = (*reversed(PATTERNS),)
TINY = [
    *("--allow-weak-teacher", "--student", "layers=2", "--max-length", "16", "--batch-size", "32"),
    *("--teacher-epochs", "2", "--shared-epochs", "1", "--predict-epochs", "1"),
    *("--dropout", "0.1", "--cache-budget", "0.1", "--track", "none", "--precision", "float32"),
]


class Moment(NamedTuple):
    """The `count`th event of a phase, and what strikes then."""

    phase: str
    count: int
    signal: str


def phase_of(file: str, phase: str) -> str:
    """The phase that work on a file of the run begins, or else that which is under way; none comes back."""
    begun = next((name for name, pattern in PATTERNS.items() if re.search(pattern, file)), phase)
    return max(begun, phase, key=PHASES.index)


class Watch:
    """Counts what a run does, by phase, and sends it the signal of its moment."""

    def __init__(self, folder: Path, moment: Moment | None) -> None:
        self.folder, self.moment = f"{folder}/", moment
        self.phase, self.seen = "weigh", Counter[str]()
        register_optimizer_step_post_hook(lambda *_: self.note())
        sys.addaudithook(self.hear)

    def hear(self, event: str, values: tuple[Any, ...]) -> None:
        if event not in EVENTS or not str(values[0]).startswith(self.folder):
            return
        if event != "open" or values[2] & os.O_ACCMODE:  # what is only read begins nothing
            self.phase = phase_of(str(values[0]).removeprefix(self.folder), self.phase)
        self.note()

    def note(self) -> None:
        self.seen[self.phase] += 1
        if self.moment and (self.phase, self.seen[self.phase]) == self.moment[:2]:
            strike = getattr(signal, f"SIG{self.moment.signal}")
            delay = random.Random(str(self.moment)).uniform(0, LATEST)
            threading.Timer(delay, os.kill, (os.getpid(), strike)).start()


def save_steadily() -> None:
    """Let training save itself at every fourth update, whatever the clock says."""
    on_step_end = checkpointing.CheckpointCallback.on_step_end

    def steady(self: checkpointing.CheckpointCallback, args: Any, state: Any, control: Any, **rest: Any) -> None:
        self.pause = 0 if state.global_step % SAVED_EVERY == 0 else math.inf
        on_step_end(self, args, state, control, **rest)

    checkpointing.CheckpointCallback.on_step_end = steady  # type: ignore[method-assign]


def in_a_process(work: Callable[[], None], log: Path) -> int:
    """The exit code of a fork of this process that does `work`; that of a killed one is the signal's, below zero."""
    if child := os.fork():
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    code = 1
    try:
        file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, 1)
        os.dup2(file, 2)
        work()
        code = 0
    except SystemExit as stop:
        code = int(stop.code or 0)
    finally:
        os._exit(code)


def run(folder: Path, options: Sequence[str], moment: Moment | None = None, counts: Path | None = None) -> int:
    """`metakd run` into the folder, gone on with if something is there; its exit code."""

    def work() -> None:
        watch = Watch(folder, moment)
        save_steadily()
        begun = folder.exists() and any(folder.iterdir())
        sys.argv = ["metakd", "run", "--output", str(folder), *options, *TINY, *(["--resume"] if begun else [])]
        try:
            metakd()
        finally:
            if counts:
                counts.write_text(json.dumps(watch.seen))

    return in_a_process(work, folder.with_suffix(".log"))


def moments(counts: dict[str, int], number: int, signals: Sequence[str], seed: int) -> list[Moment]:
    """So many moments, phases and signals taking turns, by chance within each phase, in the order of the run."""
    draw, last = random.Random(seed), {"score": 3}  # with these events the process ends, and may outrun its end
    phases = [name for name in PHASES if counts.get(name)]
    chosen = [
        Moment(name, draw.randint(1, counts[name] - last.get(name, 0)), signals[i % len(signals)])
        for i, name in enumerate(islice(cycle(phases), number))
    ]
    return sorted(chosen, key=lambda m: (PHASES.index(m.phase), m.count))


def strike(moment: Moment, folder: Path, options: Sequence[str]) -> dict[str, Any]:
    """What came of one moment: the run's exit code, and whether its log says how to go on."""
    code = run(folder, options, moment)
    log = folder.with_suffix(".log").read_text(encoding="utf-8", errors="replace")
    begun = (folder / "run.json").exists()
    helped = moment.signal == "KILL" or f"metakd run --output {folder} --resume" in log or not begun
    clean = "Traceback" not in log
    return {**moment._asdict(), "exit_code": code, "told_how_to_go_on": helped, "no_traceback": clean}


def compared(reference: Path, folder: Path, options: Sequence[str]) -> dict[str, Any]:
    """Finish the run, and hold it against the one that was never stopped."""
    code = run(folder, options)
    if code:
        return {"finished": code, "differences": {"log": [folder.with_suffix(".log").read_text(encoding="utf-8")]}}
    left = [path.name for path in folder.rglob("*") if path.name.startswith(".") or path.name.startswith("checkpoint-")]
    differences = compare(reference, folder).differences
    return {"finished": 0, "differences": differences | ({"left": left} if left else {})}


def toys(place: Path) -> list[str]:
    """The tiny encoder and the tiny corpus of the tests, as options of `metakd run`."""
    made = runpy.run_path(str(TESTS / "conftest.py"))
    made["save_checkpoint"](place / "base")
    for seed, (split, count) in enumerate({"train": 128, "dev": 16, "test": 24}.items()):
        rows = [made["as_row"](example) for example in made["toy_examples"](count, seed, split)]
        made["write_rows"](place / "data" / f"{split}.jsonl", rows)
    return ["--data", str(place / "data"), "--base", str(place / "base")]


def measure(number: int, signals: Sequence[str], chain: bool, seed: int) -> dict[str, Any]:
    """What became of each moment, and of the runs; with `chain`, of one run that all of them strike."""
    load_library()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell has it ignored by what it starts with &
    torch.set_num_threads(1)  # threads of tiny models wait longer than they work
    started, around = time.monotonic(), environment()
    with tempfile.TemporaryDirectory() as place:
        options = toys(Path(place))
        reference, counts = Path(place, "reference"), Path(place, "counts.json")
        if run(reference, options, counts=counts):
            raise SystemExit(reference.with_suffix(".log").read_text(encoding="utf-8"))
        counted = json.loads(counts.read_text(encoding="utf-8"))
        struck = []
        for moment in moments(counted, number, signals, seed):
            folder = Path(place, "run")
            outcome = strike(moment, folder, options)
            if not chain:
                outcome |= compared(reference, folder, options)
                shutil.rmtree(folder, ignore_errors=True)
            struck.append(outcome)
        last = compared(reference, Path(place, "run"), options) if chain else {}
        codes = {"KILL": -signal.SIGKILL, "TERM": 128 + signal.SIGTERM, "INT": 128 + signal.SIGINT}
        return {
            "moments": struck,
            "events": counted,
            "stopped": sum(moment["exit_code"] == codes[moment["signal"]] for moment in struck),
            "same": sum(not moment["differences"] for moment in [last] * chain + struck * (not chain)),
            **({"chain": last} if chain else {}),
            "volatile": [*VOLATILE],
            "seconds": round(time.monotonic() - started),
            "environment": around,
        }


def table(results: dict[str, Any]) -> str:
    """How often each step was struck by each signal, and how many of these runs ended as the one never stopped."""
    struck = results["moments"]
    signals = sorted({moment["signal"] for moment in struck})
    rows = [["struck in", *(f"SIG{name}" for name in signals), "ended the same"]]
    rows.append(["---", *["---:"] * (len(signals) + 1)])
    for phase in [name for name in PHASES if name in results["events"]]:
        of_phase = [moment for moment in struck if moment["phase"] == phase]
        counts = [str(sum(moment["signal"] == name for moment in of_phase)) for name in signals]
        same = sum(not moment["differences"] for moment in of_phase)
        rows.append([phase, *counts, f"{same} of {len(of_phase)}"])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--moments", type=int, default=24)
    parser.add_argument("--signal", nargs="+", choices=("KILL", "TERM", "INT"), default=["KILL", "TERM", "INT"])
    parser.add_argument("--chain", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    if options.chain and options.write:
        parser.error("--chain compares the last run alone: the table that --write keeps is of runs struck once each")
    results = measure(options.moments, options.signal, options.chain, options.seed)
    text = json.dumps(results, indent=2) + "\n"
    sys.stdout.write(text)
    if options.write:
        RESULTS.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
