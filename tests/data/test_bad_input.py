"""Every way to get it wrong that we could think of: one message that names it and helps, and nothing left behind."""

import gzip
import io
import json
import shlex
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from conftest import as_row, toy_examples, write_rows
from metakd.data.releases import AMAZON_DOMAINS, AMAZON_LABELS

Command = Callable[..., tuple[int, str, str]]

ROWS = [as_row(e) for e in toy_examples(16, 0, "t")]
HEADER = "text,label,domain\n"
SOUND = "".join(json.dumps(row) + "\n" for row in ROWS)

RUN = "run --output o --base {base} --max-length 16 --student layers=2 --data in"
EXPERIMENT = "experiment size --data in --base {base} --max-length 16"
FIT = "fit --data in --base {base} --max-length 16 --output f"
ON_FILE = RUN + "/rows"
TAKEN = "data amazon --source in/a.tar.gz --output o"


def changed(number: int, **values: Any) -> str:
    """Sound rows, one of which has other values."""
    return "".join(json.dumps(row | (values if i == number else {})) + "\n" for i, row in enumerate(ROWS, start=1))


def only(**values: Any) -> str:
    """Sound rows, all of them with these values."""
    return "".join(json.dumps(row | values) + "\n" for row in ROWS)


def without(field: str) -> str:
    return "".join(json.dumps({k: v for k, v in row.items() if k != field}) + "\n" for row in ROWS)


def parquet(**columns: list[Any]) -> bytes:
    file = io.BytesIO()
    pd.DataFrame({"label": ["a"], "domain": ["b"]} | columns).to_parquet(file)
    return file.getvalue()


def release(*members: tarfile.TarInfo | str, packed: bool = True) -> bytes:
    """An archive of the Amazon release, one file short, and these members; those named are sound."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz" if packed else "w") as archive:
        names = [f"{domain}/{label}.review" for domain in AMAZON_DOMAINS for label in AMAZON_LABELS]
        for member in [*names[1:], *members]:
            info = tarfile.TarInfo(member) if isinstance(member, str) else member
            body = b"".join(b"<review_text>no. %d</review_text>" % i for i in range(11))
            info.size = info.size or (len(body) if info.isfile() else 0)
            archive.addfile(info, io.BytesIO(body.ljust(info.size, b"\0")))
    return file.getvalue()


def member(name: str, **facts: Any) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    for key, value in facts.items():
        setattr(info, key, value)
    return info


def bomb() -> bytes:
    """80 MB of sound rows in 80 kB."""
    row = json.dumps({"text": "a" * 10**6, "label": "a", "domain": "b"})
    return gzip.compress(f"{row:{2**20}}\n".encode() * 80)


Content = str | bytes | Path | Callable[[], str | bytes]  # a Path is where a link leads
DATA: list[tuple[dict[str, Content], str, str]] = [
    ({}, RUN, "no such file or folder"),
    ({"notes.txt": "x"}, RUN, "in: 1 fault - no train (.jsonl, .jsonl.gz, .csv,"),
    ({"train.jsonl": SOUND, "train.csv": HEADER}, RUN, "train: stands there as train.csv and train.jsonl; keep one"),
    ({"rows.jsonl": ""}, f"{ON_FILE}.jsonl", "rows.jsonl: no rows"),
    ({"rows.csv": HEADER}, f"{ON_FILE}.csv", "rows.csv: no rows"),
    ({"rows.xlsx": "x"}, f"{ON_FILE}.xlsx", "expected one of .jsonl"),
    ({"rows.jsonl": without("label")}, f"{ON_FILE}.jsonl", "row 1 and 15 more: no 'label'; fields there: id, text"),
    ({"rows.csv": "text,lable,domain\na,b,c\n"}, f"{ON_FILE}.csv", "did you mean --columns label=lable?"),
    ({"rows.jsonl": SOUND}, f"{ON_FILE}.jsonl --columns text=review", "no 'review' (the column of text)"),
    ({"rows.jsonl": SOUND}, f"{ON_FILE}.jsonl --columns texts=text", "write FIELD=COLUMN with a field of text"),
    ({"rows.jsonl": SOUND}, f"{ON_FILE}.jsonl --columns text", "write FIELD=COLUMN"),
    ({"rows.jsonl": changed(3, text="")}, f"{ON_FILE}.jsonl", "rows.jsonl, row 3, text: is empty; drop the row"),
    ({"rows.jsonl": changed(3, text="\u200b\n")}, f"{ON_FILE}.jsonl", "row 3, text: is empty"),
    ({"rows.jsonl": changed(3, text=7)}, f"{ON_FILE}.jsonl", "row 3, text: expected text, found 7"),
    ({"rows.jsonl": changed(3, text=None)}, f"{ON_FILE}.jsonl", "row 3, text: is empty"),
    ({"rows.jsonl": changed(3, label=None)}, f"{ON_FILE}.jsonl", "row 3, label: is empty; give the row one"),
    ({"rows.jsonl": changed(3, label=0.5)}, f"{ON_FILE}.jsonl", "row 3, label: expected a name or a whole number"),
    ({"rows.jsonl": changed(3, domain=["a"])}, f"{ON_FILE}.jsonl", "row 3, domain: expected a name or a whole number"),
    ({"rows.jsonl": changed(3, domain="")}, f"{ON_FILE}.jsonl", "row 3, domain: is empty"),
    ({"rows.jsonl": changed(3, domain="d" * 300)}, f"{ON_FILE}.jsonl", "is too long for the name of a folder"),
    ({"rows.jsonl": changed(3, text_pair="x")}, f"{ON_FILE}.jsonl", "text_pair: missing on 15 rows and present"),
    ({"rows.jsonl": changed(3, id="t-0")}, f"{ON_FILE}.jsonl", "id 't-0' stands on 2 rows; make ids unique"),
    ({"rows.jsonl": only(label="good")}, f"{ON_FILE}.jsonl", "one label only (good)"),
    ({"rows.jsonl": SOUND + "{broken\n"}, f"{ON_FILE}.jsonl", "row 17: not a line of JSON"),
    ({"rows.jsonl": SOUND + "[1]\n"}, f"{ON_FILE}.jsonl", "row 17: expected an object, found list"),
    ({"rows.csv": HEADER + "a,b\n"}, f"{ON_FILE}.csv", "row 2, domain: is empty"),
    ({"rows.csv": HEADER + "a,b,c,d\n"}, f"{ON_FILE}.csv", "row 2: 4 fields, and the header names 3"),
    ({"rows.tsv": 'text\tlabel\tdomain\n"a\tb\tc\n"d\te\tf\n'}, f"{ON_FILE}.tsv", "double quote"),
    ({"dataset_dict.json": "{"}, RUN, "what `datasets` saved there cannot be read"),
    ({"rows.csv": HEADER + '"a,b,c\n'}, f"{ON_FILE}.csv", "row 2: unexpected end of data; check the double quotes"),
    ({"rows.csv": "text,text,domain\na,b,c\n"}, f"{ON_FILE}.csv", "the header names text more than once"),
    ({"rows.csv": HEADER.encode() + b"f\xfcr,a,b\n"}, f"{ON_FILE}.csv", "line 2, byte 2: 0xFC is no utf-8; save"),
    ({"rows.csv": SOUND}, f"{ON_FILE}.csv --encoding utf-99", "Python knows no such encoding"),
    ({"rows.parquet": "PAR1"}, f"{ON_FILE}.parquet", "not a whole Parquet file"),
    ({"rows.jsonl.gz": SOUND}, f"{ON_FILE}.jsonl.gz", "cannot be read to its end"),
    ({"train.jsonl": SOUND, "dev.jsonl": changed(1, label="odd")}, RUN, "dev, label: 'odd' (1 rows) does not occur in"),
    ({"train.jsonl": SOUND, "test.jsonl": changed(1, domain="odd")}, RUN, "test, domain: 'odd' (1 rows) does not"),
    ({"train.jsonl": SOUND}, RUN, "neither test nor dev, so there is nothing to score on; add dev.jsonl"),
    ({"train.jsonl": SOUND, "dev.jsonl": only(domain="books")}, RUN, "dev has no rows of kitchen"),
    # Bytes and characters that no text has
    ({"rows.jsonl": "\0" * 4096}, f"{ON_FILE}.jsonl", "row 1: not a line of JSON"),
    (
        {"rows.jsonl": changed(3, text="a\0b")},
        f"{ON_FILE}.jsonl",
        "row 3, text: holds a NUL character",
    ),
    ({"rows.csv": HEADER.encode("utf-16-le")[:-1] * 2}, f"{ON_FILE}.csv", "fields there: 't\\x00e\\x00x\\x00t"),
    ({"rows.jsonl": changed(3, domain="\0")}, f"{ON_FILE}.jsonl", "row 3, domain: holds a NUL character"),
    ({"rows.jsonl": changed(3, text="half \ud83d")}, f"{ON_FILE}.jsonl", "row 3, text: holds a lone surrogate"),
    ({"rows.jsonl": changed(3, label="\udfff")}, f"{ON_FILE}.jsonl", "row 3, label: holds a lone surrogate"),
    ({"rows.jsonl": changed(3, label="a\x1b[2Jb")}, f"{ON_FILE}.jsonl", "control characters in the name 'a\\x1b[2Jb'"),
    ({"rows.jsonl": '{"\\ud800\\u001b[2J": 1}'}, f"{ON_FILE}.jsonl", "fields there: '\\ud800\\x1b[2J'"),
    # Labels of every type that JSON and Parquet have
    ({"rows.jsonl": changed(3, label={"a": 1})}, f"{ON_FILE}.jsonl", "whole number, found {'a': 1}"),
    ({"rows.jsonl": changed(3, label=float("nan"))}, f"{ON_FILE}.jsonl", "whole number, found nan"),
    ({"rows.jsonl": changed(3, label=float("-inf"))}, f"{ON_FILE}.jsonl", "whole number, found -inf"),
    ({"rows.jsonl": changed(3, label=[])}, f"{ON_FILE}.jsonl", "whole number, found []"),
    ({"rows.jsonl": changed(3, label="l" * 5000)}, f"{ON_FILE}.jsonl", "5,000 characters are too long for a name"),
    ({"rows.jsonl": SOUND.replace('"negative"', "9" * 5000)}, f"{ON_FILE}.jsonl", "Exceeds the limit (4300 digits)"),
    ({"rows.jsonl": only(label=True)}, f"{ON_FILE}.jsonl", "one label only (True)"),
    ({"rows.parquet": parquet(text=["x"], label=[b"\xff"])}, f"{ON_FILE}.parquet", "whole number, found b'\\xff'"),
    ({"rows.parquet": parquet(text=["x"], label=[pd.Timestamp(0)])}, f"{ON_FILE}.parquet", "found Timestamp("),
    (
        {"rows.parquet": parquet(text=[{"a": [1]}])},
        f"{ON_FILE}.parquet",
        "text: expected text, found {'a': [1]}",
    ),
    ({"rows.parquet": parquet(text=[["x"]])}, f"{ON_FILE}.parquet", "row 1, text: expected text, found ['x']"),
    # Too much, too little, twice
    ({"rows.jsonl": lambda: SOUND + json.dumps({"text": "a" * 10**7})}, f"{ON_FILE}.jsonl", "longer than 8,000,000"),
    ({"rows.csv": lambda: HEADER + '"' + "a\n" * 5 * 10**6}, f"{ON_FILE}.csv", "row 2: field larger than field limit"),
    (
        {"train.jsonl": lambda: "".join(f'{{"text": "a", "label": {i % 2}, "domain": {i}}}\n' for i in range(10**5))},
        RUN,
        "domain: 100,000 of them, and 1,000 is the most",
    ),
    ({"rows.jsonl.gz": bomb}, f"{ON_FILE}.jsonl.gz", "unpacks to more than 67,108,864 bytes, over 100 times its size"),
    ({"rows.parquet.gz": bomb}, f"{ON_FILE}.parquet.gz", "unpacks to more than"),
    ({"rows.jsonl": SOUND.replace('"id"', '"text"')}, f"{ON_FILE}.jsonl", "it names text more than once"),
    ({"rows.jsonl": changed(3, domain="Books")}, f"{ON_FILE}.jsonl", "'Books' and 'books' differ in capitals alone"),
    ({"rows.csv": SOUND}, f"{ON_FILE}.csv --encoding hex", "encoding = 'hex': Python knows no such encoding"),
    # Links
    ({"rows.jsonl": Path("rows.jsonl")}, f"{ON_FILE}.jsonl", "rows.jsonl: no such file"),
    ({"train.jsonl": Path("/dev/zero")}, RUN, "train.jsonl: not an ordinary file"),
    ({"train.jsonl": Path("nowhere"), "dev.jsonl": SOUND}, RUN, "train.jsonl: no such file"),
    # Archives
    (
        {"a.tar.gz": release("../../books/positive.review")},
        TAKEN,
        "'../../books/positive.review' climbs out of",
    ),
    ({"a.tar.gz": release("/books/positive.review", packed=False)}, TAKEN, "'/books/positive.review' climbs out"),
    (
        {"a.tar.gz": release(member("books/positive.review", type=tarfile.SYMTYPE, linkname="/etc/passwd"))},
        TAKEN,
        "no books/positive.review",
    ),
    (
        {"a.tar.gz": release(member("books/positive.review", type=tarfile.LNKTYPE, linkname="books/negative.review"))},
        TAKEN,
        "1 fault - no books/positive.review",
    ),
    ({"a.tar.gz": release("books/positive.review", packed=False)[:700]}, TAKEN, "neither a folder nor a whole .tar.gz"),
    ({"a.tar.gz": release(*["x/books/positive.review"] * 2)}, TAKEN, "books/positive.review is there twice"),
    ({"a.tar.gz": lambda: release(member("x", size=80 * 2**20))}, TAKEN, "a.tar.gz: unpacks to more than"),
]

SETTINGS = [
    (RUN + " --alpha 2", "alpha = '2': Input should be less than or equal to 1"),
    (RUN + " --seed one", "seed = 'one'"),
    (RUN + " --alpha 2 --gamma1 -1", "2 faults"),
    (RUN + " --method magic", "there are meta_kd, cross_domain"),
    (RUN + " --student layers=9", "the base has 4 layers; choose 1 to 4"),
    (RUN + " --student layers=0", "choose 1 to 4"),
    (RUN + " --student nobody/nothing", "nobody/nothing: not found"),
    (RUN + " --max-length 512", "positions for 40 tokens"),
    (RUN + " --layer-map 1", "layer_map = '1'"),
    (RUN + " --terms prediction,magic", "terms.1 = 'magic': Input should be 'embedding', 'hidden'"),
    (RUN + " --base in", "no config.json"),
    (RUN + " --base nobody/nothing", "not found as a folder, the local hub cache or on the hub"),
    (RUN + " --base {mpnet} --attention scores", "does not give its raw attention scores"),
    (RUN + " --student {one_head} --attention scores", "the teacher has 2 attention heads and the student 1"),
    (
        RUN + " --student {other_words} --terms hidden,prediction --stages two --match-epochs 1",
        "student and teacher have different tokenizers: nothing is left to match; use --terms prediction",
    ),
    (RUN + " --gama2 1", "No such option: --gama2"),
    (RUN + " --config none.yaml", "none.yaml: cannot be read"),
    (RUN + " --config odd.yaml", "gama2: no such setting; did you mean 'gamma2'?"),
    (RUN + " --config list.yaml", "expected 'setting: value' lines"),
    (RUN + " --config laughs.yaml", "laughs.yaml: holds an alias ('*name'); write the value out"),
    (RUN + " --config twice.yaml", "twice.yaml: seed is there more than once; keep one"),
    (RUN + " --config deep.yaml", "deep.yaml: not valid YAML"),
    (RUN + " --config code.yaml", "could not determine a constructor for the tag"),
    (RUN + " --config month.yaml", "month.yaml: not valid YAML (month must be in 1..12)"),
    (RUN + " --config /dev/zero", "longer than 100,000 characters, so it is no file of settings"),
    (RUN + " --gamma1 inf", "gamma1 = 'inf': Input should be a finite number"),
    (RUN + " --teacher-epochs 99999999999999999999", "Input should be less than or equal to 10000"),
    (RUN + " --config nul.yaml", "encoding: holds a NUL character"),
    (RUN + " --resume --overwrite", "give one of them"),
    (RUN.replace("--output o", "--output in/dev.jsonl"), "is there already"),
    (RUN.replace("--output o", "--output {run}"), "is there already: --resume goes on with it, --overwrite makes it"),
    (RUN.replace("--output o", "--output in") + " --overwrite", "in is there already, and no run is in it"),
    (RUN.replace("--output o", "--output {run}") + " --resume", "was made with other settings, data or base"),
    (RUN.replace("--output o", "--output in") + " --overwrite --dry-run", "in is there already, and no run is in it"),
    ("run --output o", "--data is missing"),
    ("run --output in --resume", "--data is missing, and in holds no run to go on with"),
    ("distill --output {run} --domain garden", "books, kitchen"),
    (RUN.replace("run", "distill", 1) + " --domain garden", "--domain garden: the data has books, kitchen"),
    (RUN + " --match-epochs 3", "a joint stage has no first one"),
    ("reproduce {run} --output in", "in is there already, and no run is in it"),
    (EXPERIMENT + " --output in", "in is there already, and no experiment is in it"),
    (
        EXPERIMENT + " --output e --baseline --bootstrap 500",
        "--baseline, --bootstrap: an experiment decides this itself",
    ),
    (FIT + " --layer-map 1,2", "--layer-map: fit decides this itself"),
    (FIT + " --method hrkd --shared-epochs 0", "method = 'hrkd' cannot be used"),
    ("evaluate in", "no run here"),
    ("evaluate {run} --columns text=review", "are of the file that --data names"),
    ("evaluate {run} --data in/dev.jsonl", "go together"),
    ("evaluate {run} --data in/dev.jsonl --output no/p", "has to be a file in a folder that is there"),
    ("predict in --input in/dev.jsonl --output p", "no config.json"),
    ("predict x --input in/dev.jsonl --output p", "no such folder"),
    ("predict {base} --input in/dev.jsonl --output in", "has to be a file"),
    ("predict {base} --input in/dev.jsonl --output p", "not a text classifier"),
    ("predict {run}/students/books --input none.jsonl --output p", "no such file"),
    ("predict {run}/students/books --output p", "Missing option"),
    ("inspect none.csv", "no such file"),
    ("data amazon --source none --output o", "no such file or folder"),
    ("data amazon --source none --output .", "name a folder to be made"),
    ("nothing", "No such command"),
]


@pytest.fixture
def places(checkpoint: Callable[..., Path]) -> dict[str, Path]:
    return {
        "base": checkpoint(),
        "mpnet": checkpoint("mpnet"),
        "one_head": checkpoint("bert", num_attention_heads=1),
        "other_words": checkpoint("bert", words=["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "b", "c"]),
    }


def assert_refused(metakd: Command, command: str, places: dict[str, Path], message: str) -> None:
    before = {path: path.lstat().st_mtime_ns for path in Path().rglob("*")}
    code, out, err = metakd(*shlex.split(command.format(**places)))
    told = " ".join((out + err).split())
    assert code == 2, told
    assert message in told
    assert "Traceback" not in told
    assert {path: path.lstat().st_mtime_ns for path in Path().rglob("*")} == before


@pytest.mark.parametrize(("files", "command", "message"), DATA, ids=[message for *_, message in DATA])
def test_data_that_cannot_be_used(
    metakd: Command,
    places: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    files: dict[str, Content],
    command: str,
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, content in files.items():
        Path("in").mkdir(exist_ok=True)
        if isinstance(content, Path):
            (Path("in") / name).symlink_to(content)
            continue
        content = content() if callable(content) else content
        (Path("in") / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    assert_refused(metakd, command, places, message)


@pytest.mark.parametrize(("command", "message"), SETTINGS, ids=[message for _, message in SETTINGS])
def test_commands_and_settings_that_cannot_be(
    metakd: Command,
    places: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
    command: str,
    message: str,
) -> None:
    if "{run}" in command:
        places["run"] = request.getfixturevalue("finished_run")
    monkeypatch.chdir(tmp_path)
    for split in ("train", "dev"):
        write_rows(Path("in") / f"{split}.jsonl", ROWS)
    Path("odd.yaml").write_text("gama2: 1\n")
    Path("list.yaml").write_text("- 1\n")
    laughs = "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 30))
    Path("laughs.yaml").write_text(f"a0: &a0 [lol]\n{laughs}base: *a29\n")
    Path("twice.yaml").write_text("seed: 1\nseed: 2\n")
    Path("deep.yaml").write_text("base: " + "[" * 40_000)
    Path("code.yaml").write_text("base: !!python/object/apply:os.system ['touch executed']\n")
    Path("month.yaml").write_text("base: 2001-13-01\n")
    Path("nul.yaml").write_text('encoding: "a\\0b"\n')
    assert_refused(metakd, command, places, message)


def test_faults_of_data_model_and_method_come_in_one_message(
    metakd: Command, places: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_rows(Path("in") / "train.jsonl", [ROWS[0], {**ROWS[1], "text": ""}])
    for message in ("there are meta_kd, cross_domain", "row 2, text: is empty", "the base has 4 layers; choose 1 to 4"):
        assert_refused(metakd, RUN + " --method magic --student layers=9", places, message)


def test_there_are_at_least_eighty_of_them() -> None:
    assert len({message for *_, message in DATA} | {message for _, message in SETTINGS}) >= 80


def test_a_loss_that_is_no_number_stops_at_once_and_names_the_term(
    metakd: Command, places: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for split in ("train", "dev"):
        write_rows(tmp_path / "in" / f"{split}.jsonl", ROWS)
    monkeypatch.chdir(tmp_path)
    command = RUN.format(**places) + " --teacher-learning-rate 1e30 --warmup 0 --batch-size 4"
    code, _, err = metakd(*shlex.split(command))
    told = " ".join(err.split())
    assert code == 2, told
    assert "teach all domains, update 2: the loss term 'class' is not finite. Lower the learning rate" in told
    assert not Path("o/meta_teacher").exists()


def test_a_refused_step_leaves_what_the_run_is_made_of(
    metakd: Command, places: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the next step would take over what was never done."""
    for split in ("train", "dev"):
        write_rows(tmp_path / "in" / f"{split}.jsonl", ROWS)
    monkeypatch.chdir(tmp_path)
    assert metakd(*shlex.split(RUN.replace("run ", "weigh ", 1).format(**places)))[0] == 0
    assert_refused(metakd, "distill --output o --gamma2 5", places, "no finished meta-teacher")
    unweighted = RUN.replace("run --output o", "weigh --output p") + " --weights none"
    assert_refused(metakd, unweighted, places, "there is nothing to weigh")
    assert_refused(metakd, "teach --output o --alpha 0.9", places, "made with other settings, data or base")


def test_overwriting_removes_the_run_and_nothing_else(
    metakd: Command, places: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_rows(Path("in") / "train.jsonl", ROWS)
    write_rows(Path("in") / "dev.jsonl", ROWS)
    weigh = RUN.replace("run ", "weigh ", 1).format(**places)
    assert metakd(*shlex.split(weigh))[0] == 0
    Path("o/mine.txt").write_text("mine")
    fast = "--allow-weak-teacher --teacher-epochs 1 --no-baseline --alpha 0.9 --bootstrap 100"
    assert metakd(*shlex.split(f"{RUN} {fast}".format(**places)))[0] == 2
    code, _, err = metakd(*shlex.split(f"{RUN} {fast} --overwrite".format(**places)))
    assert code == 0, err
    assert Path("o/mine.txt").read_text() == "mine"
    assert json.loads(Path("o/run.json").read_text())["settings"]["alpha"] == 0.9
