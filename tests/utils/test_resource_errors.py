"""A machine that runs out of something: one message that says what, no traceback, and the run goes on afterwards."""

import errno
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError

from conftest import as_row, save_checkpoint, toy_examples, write_rows
from metakd import InputError, Run, Settings
from metakd.models import meta_teacher
from metakd.pipeline import evaluate, plan
from metakd.pipeline.teach import teach
from metakd.pipeline.weigh import weigh
from metakd.training import teacher_cache, trainer
from metakd.training.trackers import trackers
from metakd.utils.artifacts import reserve
from metakd.utils.resource_errors import DISK, MEMORY, exhausted_resource

Command = Callable[..., tuple[int, str, str]]
Hub = Callable[[str], tuple[str, subprocess.Popen[str]]]
QUICK = [
    *("--allow-weak-teacher", "--student", "layers=2", "--max-length", "16", "--batch-size", "32", "--track", "none"),
    *("--teacher-epochs", "1", "--no-baseline", "--bootstrap", "100", "--cache-budget", "0.1"),
]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    for seed, (split, count) in enumerate({"train": 64, "dev": 16}.items()):
        write_rows(tmp_path / "data" / f"{split}.jsonl", [as_row(e) for e in toy_examples(count, seed, split)])
    return tmp_path / "data"


def mounted(folder: Path, options: str) -> Path:
    """A file system of its own; who may not mount has to skip what needs one."""
    folder.mkdir()
    try:
        line = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
        done = subprocess.run(line, capture_output=True, check=False)
    except OSError:
        pytest.skip("no mount on this system")
    if done.returncode:
        pytest.skip(f"no mount without rights: {done.stderr.decode().strip()}")
    return folder


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = mounted(tmp_path / "small", "size=24m")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


@pytest.fixture
def locked_disk(tmp_path: Path) -> Iterator[Path]:
    folder = mounted(tmp_path / "locked", "ro,size=1m")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


@pytest.fixture
def limit() -> Iterator[Callable[[int, int], None]]:
    """limit(resource.RLIMIT_NOFILE, 10): of this very process, until the test is over."""
    before: dict[int, tuple[int, int]] = {}

    def lower(kind: int, value: int) -> None:
        before.setdefault(kind, resource.getrlimit(kind))
        resource.setrlimit(kind, (value, before[kind][1]))

    yield lower
    for kind, values in before.items():
        resource.setrlimit(kind, values)


def before(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, do: Callable[[], object]) -> None:
    """Let something happen whenever a function is about to be called."""
    given = getattr(owner, name)

    def call(*arguments: Any, **named: Any) -> Any:
        do()
        return given(*arguments, **named)

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


PLACES = {
    "a checkpoint": (trainer, "finish_checkpoint"),
    "the teacher": (meta_teacher.MetaTeacher, "save"),
    "the cache": (teacher_cache._Writer, "close"),
    "the scores": (evaluate, "write_json"),
}


def test_a_disk_that_fills_up_at_any_step_stops_the_run_which_then_goes_on(
    metakd: Command, checkpoint: Callable[..., Path], data: Path, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others fill it just before each of these is written, one after the other; each time, what is finished stays."""
    folder = small_disk / "run"
    given = ("run", "--data", data, "--base", checkpoint(), "--output", folder, *QUICK)
    finished: list[set[Path]] = [set()]
    for owner, name in PLACES.values():
        with monkeypatch.context() as patch:
            patch.setattr("metakd.training.checkpointing.CHECKPOINT_SECONDS", 0)
            before(patch, owner, name, lambda: fill(small_disk))
            code, _, told = metakd(*given, *(["--resume"] if folder.exists() else []))
        assert code == 1, told
        assert "the disk is full. Free some" in " ".join(told.split())
        assert f"Go on by: metakd run --output {folder} --resume" in told
        assert "Traceback" not in told
        finished.append({path.parent for path in folder.rglob("manifest.json") if "checkpoint" not in str(path)})
        assert finished[-2] <= finished[-1], name
        (small_disk / "filler").unlink()
    assert len(finished[-1]) > len(finished[1])
    code, _, told = metakd("run", "--output", folder, "--resume")
    assert code == 0, told
    assert (folder / "manifest.json").exists()


def test_limits_of_files_and_of_their_size_stop_the_run_which_then_goes_on(
    metakd: Command,
    checkpoint: Callable[..., Path],
    data: Path,
    tmp_path: Path,
    limit: Callable[[int, int], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = tmp_path / "run"
    given = ("run", "--data", data, "--base", checkpoint(), "--output", folder, *QUICK)
    lowest = {
        resource.RLIMIT_FSIZE: (20_000, 10**12, "a file would be larger than is allowed here (ulimit -f"),
        resource.RLIMIT_NOFILE: (3, 256, "too many files are open. Allow more: ulimit -n"),
    }
    for kind, (low, enough, message) in lowest.items():
        with monkeypatch.context() as patch:
            before(patch, meta_teacher.MetaTeacher, "save", lambda kind=kind, low=low: limit(kind, low))  # type: ignore[misc]
            code, _, told = metakd(*given, *(["--resume"] if folder.exists() else []))
        limit(kind, enough)
        assert code == 1, told
        assert message in " ".join(told.split())
        assert "Traceback" not in told
        assert (folder / "instance_weights" / "manifest.json").exists()
        assert not (folder / "meta_teacher").exists()
    code, _, told = metakd("run", "--output", folder, "--resume")
    assert code == 0, told


def test_memory_that_runs_out_is_said(
    metakd: Command, data: Path, tmp_path: Path, limit: Callable[[int, int], None]
) -> None:
    """A layer of 100 MB where 40 are allowed beyond what the process has: nothing is left but what began the run."""
    base = save_checkpoint(tmp_path / "base", num_hidden_layers=1, intermediate_size=800_000)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit(resource.RLIMIT_AS, pages * resource.getpagesize() + 40_000_000)
    given = (*QUICK, "--student", "layers=1")
    code, _, told = metakd("run", "--data", data, "--base", base, "--output", tmp_path / "run", *given)
    assert code == 1, told
    assert "memory ran out. A smaller --batch-size" in " ".join(told.split())
    assert "Traceback" not in told
    assert {path.name for path in (tmp_path / "run").iterdir()} <= {"run.json", "run.lock"}


def test_a_folder_that_cannot_be_written_to_is_refused(
    metakd: Command, checkpoint: Callable[..., Path], data: Path, locked_disk: Path
) -> None:
    code, _, told = metakd("run", "--data", data, "--base", checkpoint(), "--output", locked_disk / "run", *QUICK)
    assert code == 2, told
    assert "cannot be written to (Read-only file system)" in " ".join(told.split())


def test_a_run_that_the_disk_has_no_room_for_is_refused_before_it_starts(
    metakd: Command, checkpoint: Callable[..., Path], data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan, "free_disk", lambda _: 100_000)
    code, _, told = metakd("run", "--data", data, "--base", checkpoint(), "--output", tmp_path / "run", *QUICK)
    assert code == 2, told
    assert "GB of disk are needed, 0.00 are free. Free some, choose another --output" in " ".join(told.split())
    assert not [*(tmp_path / "run").rglob("manifest.json")]


def test_what_a_run_has_yet_to_write_is_counted_by_its_steps(
    checkpoint: Callable[..., Path], data: Path, tmp_path: Path
) -> None:
    """A model that is there, or will not be, needs no room; two checkpoints hold three times the weights each.

    Logits and h of each training text are 2 and 16 numbers of four bytes.
    """
    settings = {"base": str(checkpoint()), "max_length": 16, "student": "layers=2", "allow_weak_teacher": True}
    alone = Run.assemble(tmp_path / "a", Settings.build({**settings, "baseline": False, "shared_epochs": 0}), data)
    both = Run.assemble(tmp_path / "a", Settings.build({**settings, "shared_epochs": 0}), data)
    one, two = (plan.Disk.of(run, 0.0) for run in (alone, both))
    student = (two.models - one.models) / 2  # the rivals of two domains
    teacher = one.models - 2 * student
    assert teacher > student > 0
    assert one.passing == two.passing == 6 * teacher
    said = 4 * (2 + 16) * len(alone.data.train)
    assert plan.Disk.of(alone, 1e9).passing == 6 * student + 1e9 + said
    assert min(plan.minutes(alone).values()) > 0
    weigh(alone.begin())
    teach(alone)
    ahead = plan.minutes(alone)
    assert [name for name, own in ahead.items() if own] == ["ask the teacher", "distill (meta_kd)"]
    assert plan.Disk.of(alone, 0.0) == plan.Disk(2 * student, 6 * student + said)
    sharing = (
        Run.assemble(tmp_path / "a", Settings.build({**settings, "baseline": own}), data) for own in (False, True)
    )
    assert [plan.Disk.of(run, 0.0).models for run in sharing] == [3 * student, 6 * student]  # one more each


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
    alive.let_go()  # type: ignore[attr-defined]


def caused(error: BaseException, cause: BaseException) -> BaseException:
    error.__cause__ = cause
    return error


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
        (caused(ValueError("x"), OSError(errno.EMFILE, os.strerror(errno.EMFILE))), "too many files are open"),
    ],
)
def test_what_ran_out_is_read_off_whatever_is_raised(error: BaseException, message: str) -> None:
    assert message in (exhausted_resource(error) or "")


@pytest.mark.parametrize("error", [ValueError("no such thing"), FileNotFoundError(2, "No such file"), InputError("y")])
def test_other_faults_are_no_lack(error: BaseException) -> None:
    assert exhausted_resource(error) is None


HUB = """
import json, sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
folder, broken = Path(sys.argv[1]), sys.argv[2] == "broken"
FILES = {path.name: path.read_bytes() for path in folder.iterdir()}
SHA = "a" * 40
class Hub(BaseHTTPRequestHandler):
    def log_message(self, *_): pass
    def do_HEAD(self): self.do_GET()
    def do_GET(self):
        name = self.path.split("?")[0].rsplit("/", 1)[-1]
        if "/tree/" in self.path:
            found = [{"type": "file", "path": n, "size": len(b), "oid": n} for n, b in FILES.items()]
            body = json.dumps(found).encode()
        elif self.path.startswith("/api/models/"):
            body = json.dumps({"id": "owner/tiny", "sha": SHA, "siblings": [{"rfilename": n} for n in FILES]}).encode()
        elif name in FILES:
            body = FILES[name]
        else:
            self.send_response(404); self.end_headers(); return
        begin = int((self.headers["Range"] or "=0-").split("=")[1].split("-")[0])
        self.send_response(206 if self.headers["Range"] else 200)
        self.send_header("Content-Range", f"bytes {begin}-{len(body) - 1}/{len(body)}")
        body = body[begin:]
        for key, value in {"Content-Length": len(body), "ETag": f'"{name}"', "X-Repo-Commit": SHA}.items():
            self.send_header(key, str(value))
        self.end_headers()
        if self.command == "GET":
            gone = broken and name == "model.safetensors"
            self.wfile.write(body[: len(body) // 2] if gone else body)
            if gone:
                self.wfile.flush()
                import os; os._exit(0)
server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
print(server.server_port, flush=True)
server.serve_forever()
"""


@pytest.fixture
def hub(checkpoint: Callable[..., Path]) -> Iterator[Hub]:
    """hub("whole") or hub("broken") -> address and process; a broken one ends when half of the weights are sent."""
    servers: list[subprocess.Popen[str]] = []

    def start(kind: str) -> tuple[str, subprocess.Popen[str]]:
        line = [sys.executable, "-c", HUB, str(checkpoint()), kind]
        servers.append(subprocess.Popen(line, stdout=subprocess.PIPE, text=True))
        assert servers[-1].stdout is not None
        return f"http://127.0.0.1:{servers[-1].stdout.readline().strip()}", servers[-1]

    yield start
    for server in servers:
        server.kill()
        server.wait()


def test_a_hub_that_is_gone_half_way_leaves_nothing_that_looks_whole(hub: Hub, data: Path, tmp_path: Path) -> None:
    """The same command afterwards, with the hub back, finds what it needs; without a hub, too."""
    words = ["run", "--data", data, "--base", "owner/tiny", "--output", tmp_path / "run", *QUICK]
    found = "from metakd.models.hub import resolve; print(resolve('owner/tiny'))"

    def call(address: str, *line: object) -> subprocess.CompletedProcess[str]:
        around = os.environ | {"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": address, "HF_HOME": str(tmp_path / "hub")}
        command = [sys.executable, *map(str, line)]
        return subprocess.run(command, env=around, capture_output=True, text=True, check=False)

    address, server = hub("broken")
    broken = call(address, "-m", "metakd", *words)
    assert server.wait(timeout=10) == 0  # it has sent half of the weights
    assert broken.returncode == 2, broken.stderr
    assert "owner/tiny: not found as a folder, the local hub cache or on the hub (" in broken.stderr
    assert "hf download owner/tiny" in broken.stderr
    assert "Traceback" not in broken.stderr
    assert not (tmp_path / "run").exists()
    for address in (hub("whole")[0], "http://127.0.0.1:1"):
        done = call(address, "-c", found)
        assert done.returncode == 0, done.stderr
        assert (Path(done.stdout.strip()) / "model.safetensors").stat().st_size > 0
