"""Exhausted resources: one message that says which, no traceback, and the run can be resumed afterwards."""

import contextlib
import errno
import os
import resource
import subprocess
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError

from conftest import Command, save_checkpoint, taught, write_toy
from metakd import InputError, Run, Settings
from metakd.models import meta_teacher
from metakd.pipeline import evaluate, plan
from metakd.training import teacher_cache, trainer
from metakd.training.trackers import trackers
from metakd.utils.artifacts import reserve
from metakd.utils.errors import DISK, MEMORY, exhausted_resource

Refused = Callable[..., str]
DISK_IS_FULL = "the disk is full. Free some"
QUICK = [
    *("--allow-weak-teacher", "--student", "layers=2", "--max-length", "16", "--batch-size", "32", "--track", "none"),
    *("--teacher-epochs", "1", "--no-baseline", "--cache-budget", "0.1"),
]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_toy(tmp_path / "data", train=64, dev=16)


@contextlib.contextmanager
def mounted(folder: Path, options: str) -> Iterator[Path]:
    """A file system of its own; skips the test where the user may not mount."""
    folder.mkdir()
    try:
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no mount on this system, or without rights: {error}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    with mounted(tmp_path / "small", "size=24m") as folder:
        yield folder


@pytest.fixture
def refused(metakd: Command, base: Path, data: Path) -> Refused:
    """refused(folder, "--resume", code=2) -> the message of `metakd run`, which ends with this exit code."""

    def call(folder: Path, *flags: object, code: int = 1) -> str:
        exit_code, _, err = metakd("run", "--data", data, "--base", base, "--output", folder, *QUICK, *flags)
        assert (exit_code, "Traceback" in err) == (code, False), err
        return " ".join(err.split())

    return call


@pytest.fixture
def limit() -> Iterator[Callable[[int, int], None]]:
    """limit(resource.RLIMIT_NOFILE, 10): of this very process, until the test is over."""
    kinds = (resource.RLIMIT_AS, resource.RLIMIT_FSIZE, resource.RLIMIT_NOFILE)
    before = {kind: resource.getrlimit(kind) for kind in kinds}
    yield lambda kind, value: resource.setrlimit(kind, (value, before[kind][1]))
    for kind, values in before.items():
        resource.setrlimit(kind, values)


def before(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, action: Callable[[], object]) -> None:
    """Let something happen whenever a function is about to be called."""
    original = getattr(owner, name)

    def call(*arguments: Any, **options: Any) -> Any:
        action()
        return original(*arguments, **options)

    monkeypatch.setattr(owner, name, call)


def fill(folder: Path) -> None:
    """Leave no byte free."""
    with (folder / "filler").open("ab", buffering=0) as file:
        size = 2**20
        while size:
            try:
                file.write(bytes(size))
            except OSError:
                size //= 2


WRITERS = [  # of a checkpoint, the teacher, the cache and the scores
    *((trainer, "seal_checkpoint"), (meta_teacher.MetaTeacher, "save")),
    *((teacher_cache._Writer, "close"), (evaluate, "write_json")),
]


@pytest.mark.slow
def test_a_disk_that_fills_up_at_any_step_stops_the_run_which_then_goes_on(
    refused: Refused, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others fill it just before each of these is written, one after the other; each time, what is finished stays."""
    folder = small_disk / "run"
    finished: list[set[Path]] = [set()]
    for owner, name in WRITERS:
        with monkeypatch.context() as patch:
            patch.setattr("metakd.training.checkpointing.CHECKPOINT_SECONDS", 0)
            before(patch, owner, name, lambda: fill(small_disk))
            message = refused(folder, *(["--resume"] if folder.exists() else []))
        assert DISK_IS_FULL in message
        assert f"Continue with: metakd run --output {folder} --resume" in message
        finished.append({path.parent for path in folder.rglob("manifest.json") if "checkpoint" not in str(path)})
        assert finished[-2] <= finished[-1], name
        (small_disk / "filler").unlink()
    assert len(finished[-1]) > len(finished[1])
    refused(folder, "--resume", code=0)
    assert (folder / "manifest.json").exists()


@pytest.mark.slow
def test_limits_of_files_and_of_their_size_stop_the_run_which_then_goes_on(
    refused: Refused, tmp_path: Path, limit: Callable[[int, int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "run"
    lowest = {
        resource.RLIMIT_FSIZE: (20_000, 10**12, "a file would exceed the size limit (ulimit -f"),
        resource.RLIMIT_NOFILE: (3, 256, "too many files are open. Raise the limit: ulimit -n"),
    }
    for kind, (low, enough, message) in lowest.items():
        with monkeypatch.context() as patch:
            before(patch, meta_teacher.MetaTeacher, "save", partial(limit, kind, low))
            text = refused(folder, *(["--resume"] if folder.exists() else []))
        limit(kind, enough)
        assert message in text
        assert (folder / "instance_weights" / "manifest.json").exists()
        assert not (folder / "meta_teacher").exists()
    refused(folder, "--resume", code=0)


def test_memory_that_runs_out_is_reported(refused: Refused, tmp_path: Path, limit: Callable[[int, int], None]) -> None:
    """A layer of 100 MB where 40 are allowed beyond what the process has: nothing is left but what began the run."""
    large = save_checkpoint(tmp_path / "large", num_hidden_layers=1, intermediate_size=800_000)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit(resource.RLIMIT_AS, pages * resource.getpagesize() + 40_000_000)
    message = refused(tmp_path / "run", "--student", "layers=1", "--base", large)
    assert "out of memory. Use a smaller model" in message
    assert {path.name for path in (tmp_path / "run").glob("*")} <= {"run.json", "run.lock"}


def test_a_folder_that_cannot_be_written_to_is_refused(refused: Refused, tmp_path: Path) -> None:
    with mounted(tmp_path / "locked", "ro,size=1m") as disk:
        assert "cannot be written to (Read-only file system)" in refused(disk / "run", code=2)


def test_a_run_that_the_disk_has_no_room_for_is_refused_before_it_starts(
    refused: Refused, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan, "free_disk", lambda _: 100_000)
    message = refused(tmp_path / "run", code=2)
    assert "GB of disk, but only 0.00 are free. Free some space, choose another --output" in message
    assert not [*(tmp_path / "run").rglob("manifest.json")]


@pytest.mark.slow
def test_what_a_run_has_yet_to_write_is_counted_by_its_steps(
    base: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model that is there, or will not be, needs no room; two checkpoints hold three times the weights each.

    Logits and h of each training text are 2 and 16 numbers of four bytes.
    """

    def assemble(**more: Any) -> Run:
        settings = {"base": str(base), "max_length": 16, "student": "layers=2", "allow_weak_teacher": True}
        return Run.assemble(tmp_path / "a", Settings.build(settings | more), data)

    alone, both = assemble(baseline=False, shared_epochs=0), assemble(shared_epochs=0)
    one, two = (plan.needed_disk(run, 0.0) for run in (alone, both))
    student = (two.models - one.models) / 2  # the baselines of two domains
    teacher = one.models - 2 * student
    assert teacher > student > 0
    assert one.temporary == two.temporary == 6 * teacher
    outputs = 4 * (2 + 16) * len(alone.data.train)
    assert plan.needed_disk(alone, 1e9).temporary == 6 * student + 1e9 + outputs
    assert min(plan.minutes(alone).values()) > 0
    with monkeypatch.context() as patch:
        patch.setattr(plan, "_forward_seconds", lambda *_: 60.0)
        expected, texts = plan.minutes(alone), len(alone.data.train)
        computing = [
            model.num_parameters() - model.get_input_embeddings().weight.numel() for model in alone.blank_models
        ]
    assert expected["weigh"] == pytest.approx(texts)
    assert expected["teach"] == pytest.approx(3 * alone.settings.teacher_epochs * texts)  # backwards takes two more
    assert expected["distill (meta_kd)"] == pytest.approx(3 * texts * computing[1] / computing[0], rel=0.01)
    ahead = plan.minutes(taught(alone.begin()))
    assert [name for name, minutes in ahead.items() if minutes] == ["teacher outputs", "distill (meta_kd)"]
    assert plan.needed_disk(alone, 0.0) == plan.Disk(2 * student, 6 * student + outputs)
    sharing = [plan.needed_disk(assemble(baseline=baseline), 0.0).models for baseline in (False, True)]
    assert sharing == [3 * student, 6 * student]  # one more each


def test_space_that_is_not_there_cannot_be_reserved(small_disk: Path) -> None:
    reserve(small_disk / "little", 1000)
    assert (small_disk / "little").stat().st_size == 1000
    with pytest.raises(OSError, match="No space left"):
        reserve(small_disk / "much", 2**30)


def test_losses_that_can_no_longer_be_written_end_the_training_instead_of_waiting(small_disk: Path) -> None:
    """TensorBoard's files are written by a thread; when it fails, its error is raised where losses are logged."""
    alive, board = trackers("tensorboard", small_disk / "logs")
    fill(small_disk)
    for number in range(20):
        if alive.thread.is_alive():  # type: ignore[attr-defined]
            board.tb_writer.add_text("much", "x" * 10_000, number)  # type: ignore[attr-defined]
            time.sleep(0.05)
    alive.thread.join(timeout=10)  # type: ignore[attr-defined]
    with pytest.raises(OSError, match="No space left"):
        alive.on_log(None, None, None)
    alive.close()  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "a/b"), f"a/b: {DISK}"),
        (OSError(errno.EDQUOT, os.strerror(errno.EDQUOT)), "the disk quota is used up"),
        (SafetensorError("I/O error: No space left on device (os error 28)"), DISK),
        (RuntimeError("[enforce fail at inline_container.cc:1] . PytorchStreamWriter failed writing file data"), DISK),
        (RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"), MEMORY),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), MEMORY),
        (MemoryError(), MEMORY),
        (OSError(errno.EMFILE, os.strerror(errno.EMFILE)), "too many files are open"),
        (ValueError("no such thing"), None),
        (FileNotFoundError(2, "No such file"), None),
        (InputError("y"), None),
    ],
)
def test_exhausted_resources_are_recognised_in_any_error(error: BaseException, message: str | None) -> None:
    """Also as the cause of another."""
    caused = ValueError("x")
    caused.__cause__ = error
    for recognised in map(exhausted_resource, (error, caused)):
        assert recognised is None if message is None else message in (recognised or "")
