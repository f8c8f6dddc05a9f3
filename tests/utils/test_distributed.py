"""Two processes that share every batch: the same losses, gradients and weights as one process has, or an end in words.

What may differ is the order in which floats are added: each process adds up its part of a batch, padded to its own
longest text, before both are. In float32 that changes the last bits; 1e-5 of a weight bounds it over the few dozen
updates made here, and 1e-4 one of hrkd's graphs, whose gradients are a thousand times smaller than a student's. Biases
of keys are left out: softmax does not depend on them, so all of their gradient is such bits, and AdamW makes steps of
them.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import several
import torch
from safetensors.torch import load_file

from conftest import as_row, save_checkpoint, toy_examples, write_rows
from metakd.config.settings import Settings
from metakd.methods import METHODS
from metakd.methods.base import check_shareable
from metakd.training import trainer
from metakd.utils.artifacts import changed_files, read_manifest
from metakd.utils.batch_shares import local_share
from metakd.utils.errors import InputError

TOLERANCE, OF_GRAPHS = 1e-5, 1e-4
SECONDS = 600  # that anything may take on a busy machine before it counts as hanging
SETTINGS = [
    *("--batch-size", "8", "--max-length", "16", "--bootstrap", "100", "--precision", "float32", "--no-baseline"),
    *("--teacher-epochs", "2", "--shared-epochs", "2", "--match-epochs", "1", "--allow-weak-teacher", "--keep-cache"),
    *("--stages", "two", "--windows", "0"),
    *("--teacher-learning-rate", "1e-3", "--shared-learning-rate", "1e-3", "--track", "none"),
]


@dataclass(frozen=True)
class Place:
    """Data, a base, a narrower student, and the run of one process."""

    folder: Path

    @property
    def one(self) -> Path:
        return self.folder / "one"

    def begun(self, name: str, *left_out: str) -> Path:
        """A copy of the one process' run without some of its steps."""
        copy = Path(shutil.copytree(self.one, self.folder / name))
        for path in copy.iterdir():
            if path.name in {*left_out, "students", "results.json", "manifest.json"}:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        return copy

    def torchrun(self, *commands: list[Any], doomed: tuple[Any, ...] = ()) -> Any:
        words = [str(self.folder / "seen"), json.dumps([[str(word) for word in line] for line in commands])]
        launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
        line = [*launch, several.__file__, *words, *map(str, doomed)]
        return subprocess.run(line, capture_output=True, text=True, check=False, timeout=SECONDS)


@contextmanager
def watching(folder: Path) -> Iterator[None]:
    before = trainer._Ticks
    trainer._Ticks = several.watched(folder)  # type: ignore[misc]
    try:
        yield
    finally:
        trainer._Ticks = before  # type: ignore[misc]


def in_this_process(*words: Any) -> None:
    from metakd.cli.main import app

    app([str(word) for word in words], standalone_mode=False)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, checkpoint: Callable[..., Path]) -> Place:
    """41 rows in batches of 8: the last has one row, which two processes cannot share."""
    folder = tmp_path_factory.mktemp("several")
    for seed, (split, count) in enumerate({"train": 41, "dev": 16}.items()):
        write_rows(folder / "data" / f"{split}.jsonl", [as_row(e) for e in toy_examples(count, seed, split)])
    narrow = save_checkpoint(folder / "narrow", hidden_size=8, num_hidden_layers=2)
    models = "--base", checkpoint(), "--student", narrow
    with watching(folder / "seen" / "one"):
        in_this_process("run", "--data", folder / "data", "--output", folder / "one", *models, *SETTINGS)
    return Place(folder)


@pytest.fixture(scope="module")
def two(place: Place) -> Any:
    """All that two processes do in one session: teach, then distil after the very teacher that one process has."""
    taught, distilled = (
        place.begun("taught", "meta_teacher", "teacher_cache"),
        place.begun("two", "teacher_cache", "shared_student"),
    )
    related = place.begun("related", "shared_student")
    hrkd = ["--method", "hrkd", "--student", "layers=2"]
    with watching(place.folder / "seen" / "one"):
        in_this_process("distill", "--output", shutil.copytree(related, place.folder / "related-one"), *hrkd)
    done = place.torchrun(
        ["teach", "--output", taught],
        ["run", "--output", distilled, "--resume"],
        ["distill", "--output", related, *hrkd],
    )
    assert done.returncode == 0, done.stderr
    return done


def assert_same(one: Path, two: Path) -> None:
    ours, theirs = load_file(one), load_file(two)
    assert set(ours) == set(theirs)
    for name, value in ours.items():
        if not name.endswith("key.bias"):
            bound = OF_GRAPHS if name.startswith("relations.") else TOLERANCE
            torch.testing.assert_close(theirs[name], value, rtol=0, atol=bound, msg=lambda m, n=name: f"{n}: {m}")


MODELS = ["shared_student", "students/books", "students/kitchen"]


@pytest.mark.parametrize(
    ("one", "two_", "files"),
    [
        ("one", "taught", ["meta_teacher/model", "meta_teacher/domain_head"]),
        ("one", "two", ["shared_student/extras", "teacher_cache/index", *(f"{name}/model" for name in MODELS)]),
        ("related-one", "related", ["shared_student/extras", *(f"{name}/model" for name in MODELS)]),
    ],
)
def test_weights_and_losses_are_those_of_one_process(
    two: Any, place: Place, one: str, two_: str, files: list[str]
) -> None:
    """Teacher, its cache, students, projections, h and hrkd's graphs; and every logged loss term of each stretch."""
    for file in files:
        assert_same(place.folder / one / f"{file}.safetensors", place.folder / two_ / f"{file}.safetensors")
    for folder in {Path(file).parent for file in files} - {Path("teacher_cache")}:
        logs = [json.loads((place.folder / run / folder / "manifest.json").read_text())["log"] for run in (one, two_)]
        ours, theirs = (log.values() if isinstance(log, dict) else [log] for log in logs)
        for entries in zip(ours, theirs, strict=True):
            for expected, found in zip(*entries, strict=True):
                assert found == pytest.approx(expected, rel=1e-4)


def test_every_trainable_part_has_one_gradient_in_both_processes_and_that_of_one(two: Any, place: Place) -> None:
    """At the first update of each stretch, bit for bit in both; student, projections, h, graphs: none is left out."""
    seen = place.folder / "seen"
    titles = {path.name for path in (seen / "0").iterdir()}
    assert len(titles) == 1 + 5 + 5  # the teacher's; by each method shared, and two stages for each of two domains
    parts = set()
    for title in titles:
        one, first, second = (load_file(seen / place_ / title) for place_ in ("one/0", "0", "1"))
        assert set(one) == set(first) == set(second)
        for name, gradient in one.items():
            assert torch.equal(first[name], second[name])
            torch.testing.assert_close(first[name], gradient, rtol=1e-4, atol=1e-6)
            parts |= {".".join(name.split(".")[:2])} if gradient.any() else set()
    assert {"extras.layers", "extras.feature", "extras.transferable", "extras.relations"} <= parts
    assert {
        "student.bert",
        "student.classifier",
        "encoder.bert",
        "transferable.dense",
        "domain_classifier.weight",
    } <= parts


def test_everything_is_written_and_said_once(two: Any, place: Place) -> None:
    """The cache by the main process alone; one table, one line a stretch; results as one process has them."""
    for stretch in ("teach all domains", "meta_kd all domains: share", "remember what the teacher says", "evaluate"):
        assert two.stderr.count(f"{stretch}\n") == 1
    assert two.stdout.count("Accuracy in percent") == 1
    ours, theirs = (json.loads((place.folder / run / "results.json").read_text())["average"] for run in ("one", "two"))
    assert theirs["student"]["accuracy"] == ours["student"]["accuracy"]
    assert not list(place.folder.glob("two/**/*.partial"))


@pytest.mark.slow_all
@pytest.mark.parametrize("lost", [0, 1])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_one_of_two_stopped_ends_the_other_and_both_or_one_go_on(
    place: Place, lost: int, number: signal.Signals
) -> None:
    """After 7 of 12 updates of the shared start; what comes out is what it would have been."""
    broken = place.begun(f"broken-{lost}-{number.name}", "shared_student")
    began = time.monotonic()
    doomed = lost, "meta_kd all domains: share", 7, int(number)
    done = place.torchrun(["run", "--output", broken, "--resume"], doomed=doomed)
    assert done.returncode != 0
    assert time.monotonic() - began < SECONDS / 2
    if (
        lost == 1 and number == signal.SIGKILL
    ):  # a launcher may end the others before they have spoken, but not the main one
        assert "another of the 2 processes has ended" in done.stderr
        assert f"metakd run --output {broken} --resume" in done.stderr
    assert not (broken / "shared_student").exists()
    assert list(broken.glob("checkpoints/*/share/checkpoint-*/manifest.json"))
    by_one = Path(shutil.copytree(broken, place.folder / f"mended-by-one-{lost}-{number.name}"))
    in_this_process("run", "--output", by_one, "--resume")
    again = place.torchrun(["run", "--output", broken, "--resume"])
    assert again.returncode == 0, again.stderr
    for mended in (by_one, broken):
        for name in MODELS:
            assert_same(place.one / name / "model.safetensors", mended / name / "model.safetensors")


@pytest.mark.slow_all
@pytest.mark.parametrize("lost", [0, 1])
@pytest.mark.parametrize("step", ["instance_weights", "teacher_cache", "students/.kitchen"])
def test_one_of_two_killed_while_a_result_is_written_leaves_none_that_looks_whole(
    place: Place, step: str, lost: int
) -> None:
    """Weighing, what the teacher says, the last student: the writer is killed, or the one that waits for it."""
    broken = place.begun(f"{step.replace('/', '')}-{lost}", "instance_weights", "teacher_cache", "shared_student")
    done = place.torchrun(["run", "--output", broken, "--resume"], doomed=(lost, f"{step}.partial/"))
    assert done.returncode != 0
    assert not (broken / "results.json").exists()
    written = broken / step.replace("/.", "/")
    manifest = read_manifest(written)
    assert manifest is None or (lost == 1 and not changed_files(written, manifest))
    assert "No such process" not in done.stderr
    again = place.torchrun(["run", "--output", broken, "--resume"])
    assert again.returncode == 0, again.stderr
    for name in MODELS:
        assert_same(place.one / name / "model.safetensors", broken / name / "model.safetensors")


@pytest.mark.slow_all
def test_accelerate_launch_starts_two_as_well(place: Place) -> None:
    taught = place.begun("accelerated", "meta_teacher", "teacher_cache")
    how = [
        "--multi_gpu",
        "--num_processes",
        "2",
        "--num_machines",
        "1",
        "--mixed_precision",
        "no",
    ]  # gloo, without GPUs
    launch = [sys.executable, "-m", "accelerate.commands.launch", *how, "--dynamo_backend", "no", "-m", "metakd"]
    done = subprocess.run(
        [*launch, "teach", "--output", str(taught)], capture_output=True, text=True, check=False, timeout=SECONDS
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("teach all domains\n") == 1
    assert_same(place.one / "meta_teacher" / "model.safetensors", taught / "meta_teacher" / "model.safetensors")


def test_bad_input_is_said_once(place: Place) -> None:
    """By the main process, whatever the launcher prints beside it; and nothing is begun."""
    new = place.folder / "new"
    done = place.torchrun(["run", "--data", place.folder / "data", "--output", new, "--method", "metadistil"])
    assert done.returncode != 0
    assert done.stderr.count("its teacher learns beside the student; choose another --method") == 1
    assert not new.exists()


@pytest.fixture
def of_two(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the second of two processes, that have not met."""
    for name, value in {"RANK": 1, "WORLD_SIZE": 2, "MASTER_ADDR": "localhost", "MASTER_PORT": 1}.items():
        monkeypatch.setenv(name, str(value))


@pytest.mark.usefixtures("of_two")
def test_commands_that_are_the_work_of_one_are_refused(metakd: Callable[..., Any], tmp_path: Path) -> None:
    for words in (("evaluate", tmp_path), ("methods",), ("experiment", "main", "--output", tmp_path)):
        code, _, err = metakd(*words)
        assert code == 2
        assert f"metakd {words[0]} is the work of one process" in err


def test_a_process_leaves_the_others_before_its_interpreter_ends() -> None:
    """Else a thread of gloo's that still lets go of a tensor aborts it: two in ten ends of two processes did."""
    found = "lambda: print('still among them' if distributed.is_initialized() else 'has left')"
    lines = ["import atexit", "from torch import distributed", "from metakd.utils import distributed as processes"]
    code = "\n".join([*lines, f"atexit.register({found})", "processes._meeting()"])
    alone = {"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}
    line = [sys.executable, "-c", code]
    done = subprocess.run(line, capture_output=True, text=True, check=True, timeout=SECONDS, env=os.environ | alone)
    assert done.stdout == "has left\n"


@pytest.mark.usefixtures("of_two")
def test_what_cannot_be_shared_is_refused() -> None:
    for changes, method in (({}, "metadistil"), ({"domain_loss": "permuted"}, "meta_kd")):
        with pytest.raises(InputError, match="not for 2 processes"):
            check_shareable(method, METHODS[method], Settings(**changes))
    check_shareable("hrkd", METHODS["hrkd"], Settings())


def test_the_whole_batch_is_shared_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seven rows by two: rows 0, 2, 4, 6 and rows 1, 3, 5. One row by two: each has it, and its mean is the same."""
    assert local_share([*range(7)]) == [*range(7)]
    for name, value in {"RANK": 1, "WORLD_SIZE": 2, "MASTER_ADDR": "localhost", "MASTER_PORT": 1}.items():
        monkeypatch.setenv(name, str(value))
    assert local_share([*range(7)]) == [1, 3, 5]
    assert local_share([4]) == [4]
    monkeypatch.setenv("RANK", "0")
    assert local_share([*range(7)]) == [0, 2, 4, 6]


SBATCH = """#!/usr/bin/env bash
# Slurm as far as examples/slurm.sh needs it: jobs at once, one after the other, arrays from 1 to N.
last=0
while [[ $1 == --* ]]; do
  case $1 in --parsable) shift ;; --array) last=${2#1-}; shift 2 ;; *) shift 2 ;; esac
done
if (( last )); then for i in $(seq 1 "$last"); do SLURM_ARRAY_TASK_ID=$i bash "$@" >&2; done; else bash "$@" >&2; fi
echo 7
"""
EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.mark.slow_all
def test_the_slurm_example_makes_a_whole_run(place: Place, tmp_path: Path) -> None:
    """With a Slurm that is none, and a metakd that has the settings of the run that it is compared with."""
    begun = json.loads((place.one / "run.json").read_text())["settings"]
    base, student = ("--base", begun["base"]), ("--student", begun["student"])
    metakd = f"{sys.executable} -m metakd"
    weigh = f'weigh) exec {metakd} "$@" {" ".join([*base, *student, *SETTINGS])} ;;'
    inspect = f'inspect) exec {metakd} "$@" {" ".join(base)} ;;'
    (tmp_path / "sbatch").write_text(SBATCH)
    (tmp_path / "metakd").write_text(f'#!/usr/bin/env bash\ncase $1 in {weigh} {inspect} esac\nexec {metakd} "$@"\n')
    (tmp_path / "python").symlink_to(sys.executable)
    for name in ("sbatch", "metakd"):
        (tmp_path / name).chmod(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"
    line = ["bash", EXAMPLES / "slurm.sh", place.folder / "data", tmp_path / "run"]
    done = subprocess.run(line, capture_output=True, text=True, check=False, env=os.environ | {"PATH": path})
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "results.json").is_file()
    for name in MODELS:
        assert_same(place.one / name / "model.safetensors", tmp_path / "run" / name / "model.safetensors")
    assert done.stderr.count("remember what the teacher says\n") == 1
