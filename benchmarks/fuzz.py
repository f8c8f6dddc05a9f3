"""Feed the readers of untrusted files with what coverage-guided fuzzing makes up.

    pip install atheris
    python benchmarks/fuzz.py [--seconds 3600] [--stint 240]

Four targets take turns of `--stint` seconds, one process at a time: JSONL, CSV (and TSV), raw releases, YAML settings.
Each input has to end in a sound result or in an InputError of bounded length; what ends otherwise is a finding, kept
under build/fuzz/findings with its traceback. At the end all findings are tried again on the code as it is then.
Writes benchmarks/results/fuzz.json. What lies under build/fuzz (corpus, findings, what was
spent) is added to by the next call.
"""

import argparse
import io
import itertools
import json
import os
import subprocess
import sys
import tarfile
import tempfile
import time
import traceback
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pandas  # before anything is instrumented
import sklearn.model_selection  # noqa: F401

ROOT = Path(__file__).parents[1]
WORK = ROOT / "build" / "fuzz"
SPENT = WORK / "spent.json"
RESULT = Path(__file__).parent / "results" / "fuzz.json"
MEMORY_DISK = Path("/dev/shm")  # nosec B108
LONGEST_MESSAGE = 20_000
SLOWEST = 120  # seconds for one input, on a machine that others use as well
MEMORY = 3072  # megabytes
COUNT_EVERY = 50

if "--target" in sys.argv:
    import atheris

    with atheris.instrument_imports(include=["metakd", "yaml", "tarfile", "gzip", "csv"], enable_loader_override=False):
        pass


from metakd.config.settings import Settings
from metakd.config.settings_file import read_settings_file
from metakd.data.dataset import load_dataset
from metakd.data.examples import read_examples
from metakd.experiments.releases import AMAZON_DOMAINS, AMAZON_LABELS, prepare
from metakd.inspection.inspector import inspect_data
from metakd.utils.artifacts import write_json
from metakd.utils.errors import InputError
from metakd.utils.hardware import environment

ROWS = [
    {"text": f"a {'fine' if i % 2 else 'dull'} pan no. {i}", "label": "np"[i % 2], "domain": "ab"[i // 20]}
    for i in range(24)
]
SOUND = "".join(json.dumps(row) + "\n" for row in ROWS)


def refused(action: Callable[[], object]) -> bool:
    """Whether it raised an InputError, which has to be short enough to be read."""
    try:
        action()
    except InputError as error:
        if len(str(error)) > LONGEST_MESSAGE:
            raise ValueError(f"a message of {len(str(error))} characters") from None
        return True
    return False


def table(path: Path) -> None:
    """What is read is sound and read the same from JSON; `inspect` finds fault where `run` would, and nowhere else."""

    def read_again() -> None:
        examples = read_examples(path)
        fields = ("id", "text", "text_pair", "label", "domain")
        rows = [{name: getattr(e, name) for name in fields if getattr(e, name) is not None} for e in examples]
        again = path.with_name("again.jsonl")
        again.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        assert read_examples(again) == examples, "read otherwise from JSON"
        for example in examples:
            example.text.encode("utf-8")
            assert all((example.text.strip(), example.label, example.domain)), "an empty field"

    def inspect() -> None:
        if faults := inspect_data(path)["faults"]:
            raise InputError.collect("data", faults)

    unread, unfit = refused(read_again), refused(lambda: load_dataset(path))
    assert unfit or not unread, "a dataset of rows that cannot be read"
    if path.stat().st_size % 4 == 0:  # it takes ten times as long
        assert refused(inspect) == unfit, "run and inspect judge otherwise"


def jsonl(content: bytes, folder: Path) -> None:
    (folder / "rows.jsonl").write_bytes(content)
    table(folder / "rows.jsonl")


def csv(content: bytes, folder: Path) -> None:
    path = folder / ("rows.tsv" if content[:1] == b"\t" else "rows.csv")
    path.write_bytes(content[1:] if content[:1] == b"\t" else content)
    table(path)


def release(content: bytes, folder: Path) -> None:
    """A tar archive, one file of the Amazon release, or MultiNLI, by the first byte; what is prepared can be used."""
    kind, body, out = content[:1], content[1:], folder / "out"
    if kind == b"m":
        for split in ("train", "dev_matched"):
            (folder / f"multinli_1.0_{split}.jsonl").write_bytes(body)
        name, source = "multinli", folder
    elif kind == b"r":
        name, source = "amazon", folder / "raw"
        for domain in AMAZON_DOMAINS:
            for label in AMAZON_LABELS:
                file = source / domain / f"{label}.review"
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(review_file(11) if (domain, label) != ("books", "positive") else body)
    else:
        name, source = "amazon", folder / "raw.tar.gz"
        source.write_bytes(body)
    if refused(lambda: prepare(name, str(source), out)):
        assert not out.exists(), "refused, and there"
    else:
        assert load_dataset(out).splits["train"], "nothing to learn from"


def settings(content: bytes, folder: Path) -> None:
    path = folder / "settings.yaml"
    path.write_bytes(content)

    def read() -> None:
        built = Settings.build(read_settings_file(path))
        assert Settings.build(built.model_dump(mode="json")) == built, "other settings when read again"

    refused(read)


def review_file(count: int) -> bytes:
    return b"".join(b"<review>\n<review_text>\nno. %d\n</review_text>\n</review>\n" % i for i in range(count))


def archive() -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for domain in AMAZON_DOMAINS:
            for label in AMAZON_LABELS:
                member = tarfile.TarInfo(f"{domain}/{label}.review")
                member.size = len(body := review_file(11))
                tar.addfile(member, io.BytesIO(body))
    return content.getvalue()


def multinli() -> str:
    rows = [
        {"gold_label": "ab-"[i % 3], "genre": "fg"[i % 2], "sentence1": f"a {i}", "sentence2": f"b {i}"}
        for i in range(6)
    ]
    return "".join(json.dumps(row) + "\n" for row in rows)


HEADER = "text,label,domain\n"
TARGETS: dict[str, tuple[Callable[[bytes, Path], None], list[bytes]]] = {
    "jsonl": (
        jsonl,
        [SOUND.encode(), SOUND[:300].encode(), b'{"text": "\\ud800", "label": true, "domain": 1e999, "id": null}\n'],
    ),
    "csv": (
        csv,
        [
            pandas.DataFrame(ROWS).to_csv(index=False).encode(),
            b"\t" + pandas.DataFrame(ROWS).to_csv(index=False, sep="\t").encode(),
            b'sep=;\ntext;label;domain\n"a ""b""";c;d\n',
            HEADER.encode() + b"f\xfcr,a,b\n",
        ],
    ),
    "release": (release, [b"t" + archive(), b"r" + review_file(12), b"m" + multinli().encode()]),
    "settings": (
        settings,
        [
            b"alpha: 0.5\nseed: 0x10\nlayer_map: [2, 4]\nterms: [prediction, hidden]\n",
            b"columns: {text: review}\nbase: &a [*a]\nwarmup: .inf\nwindows: !!int '2'\n",
            b"domain_loss: 'false'\nbaseline: no\nencoding: 2001-01-01\nstages: joint\ntrack: none\n",
        ],
    ),
}


def attempt(target: str, content: bytes) -> str | None:
    """The traceback of what went wrong, if anything did."""
    with tempfile.TemporaryDirectory(dir=MEMORY_DISK if MEMORY_DISK.is_dir() else None) as folder:
        try:
            TARGETS[target][0](content, Path(folder))
        except Exception:
            return traceback.format_exc()
    return None


def fuzz(target: str, seconds: int) -> None:
    """One stint, in a process of its own, which libFuzzer ends; counts inputs in a file and keeps findings."""
    corpus, findings = WORK / "corpus" / target, WORK / "findings" / target
    for folder in (corpus, findings):
        folder.mkdir(parents=True, exist_ok=True)
    for seed in TARGETS[target][1]:
        (corpus / sha256(seed).hexdigest()[:16]).write_bytes(seed)
    tried, started = 0, time.monotonic()

    def one(content: bytes) -> None:
        nonlocal tried
        tried += 1
        if tried % COUNT_EVERY == 0:
            spent = time.monotonic() - started
            (WORK / "stint.json").write_text(json.dumps({"inputs": tried, "seconds": round(spent, 1)}))
        if (trace := attempt(target, content)) is not None:
            site = sha256("".join(row for row in trace.splitlines() if row.startswith("  File")).encode())
            place = findings / site.hexdigest()[:16]
            if not place.exists():
                place.write_bytes(content)
                place.with_suffix(".txt").write_text(trace, encoding="utf-8", errors="replace")

    limits = [
        f"-max_total_time={seconds}",
        f"-timeout={SLOWEST}",
        f"-report_slow_units={SLOWEST}",
        f"-rss_limit_mb={MEMORY}",
        "-max_len=8192",
    ]
    atheris.Setup([sys.argv[0], *limits, "-verbosity=0", f"-artifact_prefix={findings}/killed-", str(corpus)], one)
    atheris.Fuzz()


def retry() -> None:
    """Print each finding, the last line of its traceback, and whether the code as it is now still fails on it."""
    findings = []
    for path in sorted((WORK / "findings").rglob("*")):
        if path.is_file() and path.suffix != ".txt":
            trace = path.with_suffix(".txt")
            last = trace.read_text(encoding="utf-8").strip().splitlines()[-1][:200] if trace.is_file() else path.name
            still = attempt(path.parent.name, path.read_bytes()) is not None
            size, target = path.stat().st_size, path.parent.name
            findings.append({"target": target, "what": last, "bytes": size, "still_fails": still})
    print(json.dumps(findings))


def stints(seconds: int, each: int) -> None:
    """The targets in turn until `seconds` have gone by; what was spent, by target, is added up in SPENT."""
    until = time.monotonic() + seconds
    for target in itertools.cycle(TARGETS):
        if time.monotonic() >= until:
            return
        began = time.monotonic()
        (WORK / "stint.json").unlink(missing_ok=True)
        command = [sys.executable, __file__, "--target", target, "--stint", str(each)]
        done = subprocess.run(command, env=os.environ | {"PYTHONHASHSEED": "0"}, check=False)
        spent = read_spent()
        if (WORK / "stint.json").is_file():
            stint = json.loads((WORK / "stint.json").read_text())
            spent["targets"][target]["seconds"] = round(spent["targets"][target]["seconds"] + stint["seconds"], 1)
            spent["targets"][target]["inputs"] += stint["inputs"]
        spent["targets"][target]["ended_early"] += done.returncode != 0
        spent["wall_seconds"] += round(time.monotonic() - began)
        SPENT.write_text(json.dumps(spent))
        print(spent["wall_seconds"], "s,", target, spent["targets"][target], flush=True)


def read_spent() -> dict[str, Any]:
    if SPENT.is_file():
        return dict(json.loads(SPENT.read_text()))
    return {"wall_seconds": 0, "targets": {name: {"seconds": 0.0, "inputs": 0, "ended_early": 0} for name in TARGETS}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=3600, help="0: only write what there is so far")
    parser.add_argument("--stint", type=int, default=240)
    parser.add_argument("--retry", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--target", choices=TARGETS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.retry:
        retry()
    elif options.target:
        fuzz(options.target, options.stint)
    else:
        WORK.mkdir(parents=True, exist_ok=True)
        stints(options.seconds, options.stint)
        again = subprocess.run([sys.executable, __file__, "--retry"], check=True, capture_output=True, text=True)
        findings = json.loads(again.stdout)
        write_json(RESULT, {**read_spent(), "findings": findings, "environment": environment()})
        failing = sum(finding["still_fails"] for finding in findings)
        print(f"{len(findings)} findings, {failing} of them not mended: {RESULT}")


if __name__ == "__main__":
    main()
