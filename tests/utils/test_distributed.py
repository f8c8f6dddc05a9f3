"""Two processes that share every batch have the losses, gradients and weights of one process, or end with a message.

What may differ is the order in which floats are added: each process adds up its part of a batch, padded to its own
longest text, before both are. In float32 that changes the last bits; 1e-5 of a weight bounds it over the few dozen
updates made here. AdamW divides a gradient by its own size, so one that is rounding alone changes a weight as much as
any other: biases of keys, on which softmax does not depend, are left out, and hrkd, whose graphs weigh the losses and
have gradients a thousand times smaller than a student's, is trained with a larger epsilon.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import several
import torch
from safetensors.torch import load_file

from conftest import Command, read_json, refused, save_checkpoint, write_toy
from metakd.cli.main import app
from metakd.config.settings import Settings
from metakd.methods import METHODS
from metakd.methods.base import check_shareable
from metakd.training import trainer
from metakd.utils.artifacts import changed_files, read_manifest
from metakd.utils.batch_shares import local_share
from metakd.utils.distributed import LostProcessError, lost_processes_detected
from metakd.utils.errors import InputError

pytestmark = pytest.mark.xdist_group("distributed")  # in one process, as fixtures take long

TOLERANCE = 1e-5
SECONDS = 600  # that anything may take on a busy machine before it counts as hanging
SETTINGS = [
    *("--batch-size", "8", "--max-length", "16", "--precision", "float32", "--no-baseline"),
    *("--teacher-epochs", "2", "--shared-epochs", "2", "--match-epochs", "1", "--allow-weak-teacher", "--keep-cache"),
    *("--stages", "two", "--windows", "0", "--teacher-tries", "1"),
    *("--teacher-learning-rate", "1e-3", "--shared-learning-rate", "1e-3", "--track", "none"),
]


@dataclass(frozen=True)
class Workspace:
    """A folder with data, a narrow student, runs of one or two processes, and the gradients that they saved."""

    folder: Path
    one: Path  # the run of one process

    def begun(self, name: str, *left_out: str) -> Path:
        """A copy of the one process' run without some of its steps."""
        copy = Path(shutil.copytree(self.one, self.folder / name))
        for path in copy.iterdir():
            if path.name in {*left_out, "students", "results.json", "manifest.json"}:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        return copy

    def in_this_process(self, *words: Any) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(trainer, "_Trainer", several.watched(self.folder / "gradients" / "one"))
            app([str(word) for word in words], standalone_mode=False)

    def torchrun(self, *commands: list[Any], killed: tuple[Any, ...] = ()) -> Any:
        words = json.dumps([[str(word) for word in command] for command in commands])
        launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
        return shell(*launch, several.__file__, self.folder / "gradients", words, *killed)

    def resume(self, run: Path, *killed: Any) -> Any:
        return self.torchrun(["run", "--output", run, "--resume"], killed=killed)


def shell(*command: Any, check: bool = False, **environment: str) -> Any:
    words, environ = [str(word) for word in command], os.environ | environment
    return subprocess.run(words, capture_output=True, text=True, check=check, timeout=SECONDS, env=environ)


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory, base: Path) -> Workspace:
    """41 rows in batches of 8: the last has one row, which two processes cannot share."""
    folder = tmp_path_factory.mktemp("several")
    write_toy(folder / "data", train=41, dev=16)
    narrow = save_checkpoint(folder / "narrow", hidden_size=8, num_hidden_layers=2)
    space = Workspace(folder, folder / "one")
    models = "--base", base, "--student", narrow
    space.in_this_process("run", "--data", folder / "data", "--output", space.one, *models, *SETTINGS)
    return space


@pytest.fixture(scope="module")
def done(space: Workspace) -> Any:
    """All that two processes do in one session: teach, then distil after the very teacher that one process has."""
    teacher = space.begun("teacher", "meta_teacher", "teacher_cache")
    students, related = space.begun("two", "teacher_cache", "shared_student"), space.begun("related", "shared_student")
    hrkd = ["--method", "hrkd", "--student", "layers=2"]
    space.in_this_process("distill", "--output", shutil.copytree(related, space.folder / "related-one"), *hrkd)
    resume = ["run", "--output", students, "--resume"]
    done = space.torchrun(["teach", "--output", teacher], resume, ["distill", "--output", related, *hrkd])
    assert done.returncode == 0, done.stderr
    return done


def assert_same(one: Path, two: Path, *names: str) -> None:
    """The files of these names in the folders of two runs hold the same tensors."""
    for file in (f"{name}.safetensors" for name in names):
        expected, tensors = load_file(one / file), load_file(two / file)
        assert set(expected) == set(tensors)
        for name, value in expected.items():
            if not name.endswith("key.bias"):
                message = f"{name}: {{}}".format
                torch.testing.assert_close(tensors[name], value, rtol=0, atol=TOLERANCE, msg=message)


MODELS = ["shared_student/model", "students/books/model", "students/kitchen/model"]


@pytest.mark.parametrize(
    ("one", "two", "files"),
    [
        ("one", "teacher", ["meta_teacher/model", "meta_teacher/domain_head"]),
        ("one", "two", ["shared_student/extras", "teacher_cache/index", *MODELS]),
        ("related-one", "related", ["shared_student/extras", *MODELS]),
    ],
)
@pytest.mark.usefixtures("done")
def test_weights_and_losses_are_those_of_one_process(space: Workspace, one: str, two: str, files: list[str]) -> None:
    """Teacher, its cache, students, projections, h and hrkd's graphs; and every logged loss term of each stage."""
    assert_same(space.folder / one, space.folder / two, *files)
    for folder in {Path(file).parent for file in files} - {Path("teacher_cache")}:
        logs = [read_json(space.folder / run / folder / "manifest.json")["log"] for run in (one, two)]
        stages = [log.values() if isinstance(log, dict) else [log] for log in logs]
        for entries in zip(*stages, strict=True):
            for expected, entry in zip(*entries, strict=True):
                assert entry == pytest.approx(expected, rel=1e-4)


@pytest.mark.usefixtures("done")
def test_every_trainable_part_has_the_same_gradient_in_both_processes_and_in_one(space: Workspace) -> None:
    """At the first update of each stage, bit for bit in both; student, projections, h, graphs: none is left out."""
    saved = space.folder / "gradients"
    titles = {path.name for path in (saved / "0").iterdir()}
    assert len(titles) == 1 + 5 + 5  # the teacher's; by each method shared, and two stages for each of two domains
    parts = set()
    for title in titles:
        one, first, second = (load_file(saved / process / title) for process in ("one/0", "0", "1"))
        assert set(one) == set(first) == set(second)
        for name, gradient in one.items():
            assert torch.equal(first[name], second[name])
            torch.testing.assert_close(first[name], gradient, rtol=1e-4, atol=1e-6)
            parts |= {".".join(name.split(".")[:2])} if gradient.any() else set()
    assert {f"extras.{name}" for name in ("layers", "feature", "transferable", "relations")} <= parts
    assert {"student.bert", "student.classifier", "encoder.bert"} <= parts
    assert {"transferable.dense", "domain_classifier.weight"} <= parts


def test_everything_is_written_and_printed_once(done: Any, space: Workspace) -> None:
    """The cache by the main process alone; one table, one name a stage; results as one process has them."""
    for stage in ("teach all domains", "meta_kd all domains: share", "cache the teacher's outputs", "evaluate"):
        assert done.stderr.count(f"{stage}\n") == 1
    assert done.stdout.count("Accuracy in percent") == 1
    one, two = (read_json(space.folder / run / "results.json")["average"]["student"] for run in ("one", "two"))
    assert two["accuracy"] == one["accuracy"]
    assert not list(space.folder.glob("two/**/*.partial"))


@pytest.mark.slow
@pytest.mark.parametrize(("lost", "number"), [(0, signal.SIGTERM), (1, signal.SIGKILL)])
def test_one_of_two_stopped_ends_the_other_and_both_or_one_go_on(
    space: Workspace, lost: int, number: signal.Signals
) -> None:
    """After 7 of 12 updates of the shared start; what comes out is what it would have been."""
    broken = space.begun(f"broken-{lost}-{number.name}", "shared_student")
    done = space.resume(broken, lost, "meta_kd all domains: share", 7, int(number))
    assert done.returncode != 0
    stopped = "stopped by SIGTERM" in done.stderr
    if lost == 0:
        assert stopped
    else:  # on a busy machine the launcher stops the main process before that has missed the other
        assert "another of the 2 processes has ended" in done.stderr or stopped
    assert f"metakd run --output {broken} --resume" in done.stderr
    assert not (broken / "shared_student").exists()
    assert list(broken.glob("checkpoints/*/share/checkpoint-*/manifest.json"))
    by_one = Path(shutil.copytree(broken, space.folder / f"mended-by-one-{lost}-{number.name}"))
    space.in_this_process("run", "--output", by_one, "--resume")
    again = space.resume(broken)
    assert again.returncode == 0, again.stderr
    for mended in (by_one, broken):
        assert_same(space.one, mended, *MODELS)


@pytest.mark.slow
@pytest.mark.parametrize(("step", "lost"), [("instance_weights", 0), ("teacher_cache", 1), ("students/.kitchen", 0)])
def test_one_of_two_killed_while_a_result_is_written_leaves_none_that_seems_whole(
    space: Workspace, step: str, lost: int
) -> None:
    """Weights, teacher cache, the last student: the process that writes is killed, or the one that waits for it."""
    broken = space.begun(f"{step.replace('/', '')}-{lost}", "instance_weights", "teacher_cache", "shared_student")
    done = space.resume(broken, lost, f"{step}.partial/")
    assert done.returncode != 0
    assert not (broken / "results.json").exists()
    written = broken / step.replace("/.", "/")
    manifest = read_manifest(written)
    assert manifest is None or (lost == 1 and not changed_files(written, manifest))
    assert "No such process" not in done.stderr
    again = space.resume(broken)
    assert again.returncode == 0, again.stderr
    assert_same(space.one, broken, *MODELS)


@pytest.mark.slow
def test_accelerate_launch_starts_two_as_well(space: Workspace) -> None:
    teacher = space.begun("accelerated", "meta_teacher", "teacher_cache")
    launch = ["--multi_gpu", "--num_processes", 2, "--num_machines", 1]  # gloo, without GPUs
    launch += ["--mixed_precision", "no", "--dynamo_backend", "no", "-m", "metakd"]
    done = shell(sys.executable, "-m", "accelerate.commands.launch", *launch, "teach", "--output", teacher)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("teach all domains\n") == 1
    assert_same(space.one, teacher, "meta_teacher/model")


@pytest.mark.slow
def test_bad_input_is_reported_once(space: Workspace) -> None:
    """By the main process, whatever the launcher prints beside it; and nothing is begun."""
    new = space.folder / "new"
    done = space.torchrun(["run", "--data", space.folder / "data", "--output", new, "--method", "metadistil"])
    assert done.returncode != 0
    assert done.stderr.count("its teacher is trained together with the student; choose another --method") == 1
    assert not new.exists()


@pytest.fixture
def second_of_two(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the second of two processes that have not met."""
    for name, value in {"RANK": 1, "WORLD_SIZE": 2, "MASTER_ADDR": "localhost", "MASTER_PORT": 1}.items():
        monkeypatch.setenv(name, str(value))


@pytest.mark.usefixtures("second_of_two")
def test_commands_for_one_process_refuse_two(metakd: Command, tmp_path: Path) -> None:
    for words in (("evaluate", tmp_path), ("methods",), ("experiment", "main", "--output", tmp_path)):
        assert f"metakd {words[0]} runs in one process" in refused(metakd(*words))


def test_a_process_leaves_the_others_before_its_interpreter_ends() -> None:
    """Else a gloo thread that frees a tensor later on aborts it, as happened at two in ten ends of two processes."""
    state = "lambda: print('still among them' if distributed.is_initialized() else 'has left')"
    imports = "import atexit; from torch import distributed; from metakd.utils.distributed import join"
    alone = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}
    done = shell(sys.executable, "-c", f"{imports}; atexit.register({state}); join()", check=True, **alone)
    assert done.stdout == "has left\n"


@pytest.mark.usefixtures("second_of_two")
def test_a_process_that_is_gone_is_said_to_be() -> None:
    """Whatever else goes wrong keeps its own message."""
    message = "another of the 2 processes has ended, so process 1 ends too"
    with pytest.raises(LostProcessError, match=message), lost_processes_detected():
        raise RuntimeError("[gloo/transport] Connection closed by peer")
    with pytest.raises(RuntimeError, match="shapes"), lost_processes_detected():
        raise RuntimeError("shapes cannot be multiplied")


@pytest.mark.usefixtures("second_of_two")
def test_what_cannot_be_shared_is_refused() -> None:
    for changes, method in (({}, "metadistil"), ({"domain_loss": "permuted"}, "meta_kd")):
        with pytest.raises(InputError, match="not possible with 2 processes"):
            check_shareable(method, METHODS[method], Settings(**changes))
    check_shareable("hrkd", METHODS["hrkd"], Settings())


@pytest.mark.usefixtures("second_of_two")
def test_the_whole_batch_is_shared_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seven rows by two: rows 0, 2, 4, 6 and rows 1, 3, 5. One row by two: each has it, and its mean is the same."""
    assert local_share([*range(7)]) == [1, 3, 5]
    assert local_share([4]) == [4]
    monkeypatch.setenv("RANK", "0")
    assert local_share([*range(7)]) == [0, 2, 4, 6]
    monkeypatch.delenv("WORLD_SIZE")
    assert local_share([*range(7)]) == [*range(7)]


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


@pytest.mark.slow
def test_the_slurm_example_makes_a_whole_run(space: Workspace, tmp_path: Path) -> None:
    """With a stand-in for Slurm, and a metakd that has the settings of the run that it is compared with."""
    settings = read_json(space.one / "run.json")["settings"]
    base, student = f"--base {settings['base']}", f"--student {settings['student']}"
    metakd = f'{sys.executable} -m metakd "$@"'
    cases = f"weigh) exec {metakd} {base} {student} {' '.join(SETTINGS)} ;; inspect) exec {metakd} {base} ;;"
    scripts = {"sbatch": SBATCH, "metakd": f"#!/usr/bin/env bash\ncase $1 in {cases} esac\nexec {metakd}\n"}
    for name, script in scripts.items():
        (tmp_path / name).write_text(script)
        (tmp_path / name).chmod(0o755)
    (tmp_path / "python").symlink_to(sys.executable)
    path = f"{tmp_path}:{os.environ['PATH']}"
    done = shell("bash", EXAMPLES / "slurm.sh", space.folder / "data", tmp_path / "run", PATH=path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "results.json").is_file()
    assert_same(space.one, tmp_path / "run", *MODELS)
    assert done.stderr.count("cache the teacher's outputs\n") == 1
