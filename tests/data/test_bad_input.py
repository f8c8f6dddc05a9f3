"""Input that cannot be used: one message that names it and helps, and nothing left behind."""

import codecs
import gzip
import io
import json
import shlex
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow
import pyarrow.parquet
import pytest

from conftest import SPECIALS, Checkpoint, Command, as_row, read_json, refused, toy_examples
from metakd.experiments.releases import AMAZON_DOMAINS, AMAZON_LABELS

Shell = Callable[[str], tuple[int, str]]
Content = str | bytes | Path | Callable[[], str | bytes]  # a Path is where a link leads

ROWS = [as_row(e) for e in toy_examples(16, 0, "t")]
HEADER = "text,label,domain\n"
RUN = "run --output o --base {base} --max-length 16 --student layers=2 --data in"
EXPERIMENT = "experiment size --data in --base {base} --max-length 16"
FIT = "fit --data in --base {base} --max-length 16 --output f"
AMAZON = "data amazon --source in/a.tar.gz --output o"


def as_lines(rows: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def third(**values: Any) -> str:
    """Sound rows, but for the third one's values."""
    return as_lines([row | (values if i == 3 else {}) for i, row in enumerate(ROWS, start=1)])


def only(**values: Any) -> str:
    """Sound rows, all of them with these values."""
    return as_lines([row | values for row in ROWS])


def parquet(**columns: list[Any]) -> bytes:
    file = io.BytesIO()
    pd.DataFrame({"text": ["x"], "label": ["a"], "domain": ["b"]} | columns).to_parquet(file)
    return file.getvalue()


def release(*members: str, mode: str = "w:gz", **attributes: Any) -> bytes:
    """An archive of the Amazon release without its first file, and these members, with these attributes."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode=mode) as archive:  # type: ignore[call-overload]
        names = [f"{domain}/{label}.review" for domain in AMAZON_DOMAINS for label in AMAZON_LABELS]
        for name in [*names[1:], *members]:
            info = tarfile.TarInfo(name)
            for key, value in attributes.items() if name in members else ():
                setattr(info, key, value)
            body = b"".join(b"<review_text>no. %d</review_text>" % i for i in range(11))
            info.size = info.size or (len(body) if info.isfile() else 0)
            archive.addfile(info, io.BytesIO(body.ljust(info.size, b"\0")))
    return file.getvalue()


def bomb() -> bytes:
    """80 MB of sound rows in 80 kB."""
    return gzip.compress(f"{json.dumps(ROWS[0]):{2**20}}\n".encode() * 80)


def two_labels() -> bytes:
    """A Parquet file with two columns of one name, which pandas does not write."""
    file = io.BytesIO()
    columns = {"text": ["x"], "label": ["a"], "also": ["c"], "domain": ["b"]}
    pyarrow.parquet.write_table(pyarrow.table(columns).rename_columns(["text", "label", "label", "domain"]), file)
    return file.getvalue()


SOUND = only()
WIDE = HEADER + "ጥሩ,b,c\n"
TWO_LABELS = two_labels()
FIRST = "books/positive.review"
GZIP = gzip.compress(SOUND.encode())
FILES: list[tuple[str, Content, str]] = [  # suffix of the one file and flags, its content, the message
    ("jsonl", "", "rows.jsonl: no rows"),
    ("csv", HEADER, "rows.csv: no rows"),
    ("xlsx", "x", "expected one of .jsonl"),
    ("jsonl", SOUND.replace('"label"', '"x"'), "row 1 and 15 more: no column 'label'; the columns are: id, text, x"),
    ("csv", "text,lable,domain\na,b,c\n", "did you mean --columns label=lable?"),
    ("jsonl --columns text=review", SOUND, "no column 'review' (for text)"),
    ("jsonl --columns label=text", SOUND, "--columns reads text and label from one column, 'text'; name one each"),
    ("jsonl --columns text=id,text=text", SOUND, "--columns: names a field more than once"),
    ("jsonl --columns texts=text", SOUND, "write FIELD=COLUMN (fields: text, "),
    ("jsonl", third(text=""), "rows.jsonl, row 3, text: is empty; drop the row"),
    ("jsonl", third(text="\u200b\n"), "row 3, text: is empty"),
    ("jsonl", third(text=7), "row 3, text: expected text, found 7"),
    ("jsonl", only(text="") * 2, "rows.jsonl: 32 faults - rows.jsonl, row 1, text: is empty"),
    ("jsonl", only(label=0.5) * 2, "... and 12 more"),
    ("jsonl", third(label=None), "row 3, label: is empty; fill it in"),
    ("jsonl", third(domain=["a"]), "row 3, domain: expected a name or a whole number"),
    ("jsonl", third(domain="d" * 300), "is too long for a folder name"),
    ("jsonl", third(text_pair="x"), "text_pair: missing on 15 rows and present"),
    ("jsonl", third(id="t-0"), "id 't-0' is on 2 rows; make ids unique"),
    ("jsonl", only(label="good"), "only one label (good)"),
    ("jsonl", SOUND + "{broken\n", "row 17: not valid JSON"),
    ("jsonl", SOUND + "[" * 100_000, "row 17: not valid JSON (maximum recursion"),
    ("jsonl", SOUND + "[1]\n", "row 17: expected an object, found list"),
    ("csv", HEADER + "a,b\n", "row 2, domain: is empty"),
    ("csv", HEADER + "a,b,c,d\n", "row 2: 4 fields, but the header has 3; put fields with ','"),
    ("csv", "\n\n" + HEADER + "a,b,c,d\n", "row 4: 4 fields"),
    ("csv", HEADER + '"a"b,c,d\n', "from row 2 on: ',' expected after '\"'"),
    ("csv", HEADER + '"a,b,c\n', "from row 2 on: unexpected end of data; check its double quotes"),
    ("tsv", 'text\tlabel\tdomain\n"a\tb\tc\n"d\te\tf\n', "double quote"),
    ("csv", "text,text,domain\na,b,c\n", "the header has text more than once"),
    ("csv", HEADER + "a,b,c\n\ufeffText,label ,domain\n", "rows.csv, row 3: repeats the names of the columns"),
    ("tsv", "id\ttext\tlabel\tdomain\ntext\tlabel\tdomain\tid\n", "rows.tsv, row 2: repeats the names"),
    ("jsonl", third(id="id", text="text", label="label", domain="domain"), "row 3: repeats the names of the columns"),
    ("csv --encoding utf-99", SOUND, "no such encoding in Python"),
    ("csv --encoding hex", SOUND, "--encoding = 'hex': no such encoding in Python"),
    ("parquet", parquet(**{"label ": ["a"]}), "rows.parquet: the header has label more than once; rename all but one"),
    ("parquet.gz", gzip.compress(TWO_LABELS), "rows.parquet.gz: the header has label more than once"),
    ("parquet", "PAR1", "not a complete Parquet file"),
    ("jsonl.gz", SOUND, "cannot be read completely (Not a gzipped file"),
    ("jsonl.gz", GZIP[:-6], "cannot be read completely (Compressed file ended"),
    ("jsonl.gz", GZIP[:12] + b"\xff" * 8 + GZIP[20:], "cannot be read completely (Error -3"),
    # Bytes and characters that no text has
    ("jsonl", "\0" * 4096, "row 1: not valid JSON"),
    ("jsonl", third(text="a\0b"), "row 3, text: contains a NUL character"),
    ("csv", "text\0,label,domain\na,b,c\n", "the columns are: 'text\\x00'"),
    ("tsv", SOUND.encode("utf-16"), "starts with the byte-order mark of UTF-16, not utf-8; add --encoding utf-16"),
    ("csv --encoding utf-16-be", WIDE.encode("utf-16"), "of UTF-16, not utf-16-be; add --encoding utf-16"),
    ("csv", codecs.BOM_UTF16_BE + WIDE.encode("utf-16-be"), "of UTF-16, not utf-8; add --encoding utf-16"),
    ("csv --encoding cp1252", WIDE.encode("utf-32"), "of UTF-32, not cp1252; add --encoding utf-32"),
    ("csv", WIDE.encode("utf-16-le"), "is UTF-16-LE without a byte-order mark, not utf-8; add --encoding utf-16-le"),
    ("csv --encoding utf-16", WIDE.encode("utf-16-be"), "mark, not utf-16; add --encoding utf-16-be"),
    ("csv --encoding latin-1", WIDE.encode("utf-32-le"), "mark, not latin-1; add --encoding utf-32-le"),
    ("jsonl.gz", gzip.compress(SOUND.encode("utf-16-be")), "add --encoding utf-16-be"),
    ("jsonl", third(domain="\0"), "row 3, domain: contains a NUL character"),
    ("jsonl", third(text="half \ud83d"), "row 3, text: contains a lone surrogate"),
    ("jsonl", third(label="a\x1b[2Jb"), "control characters in 'a\\x1b[2Jb'"),
    ("jsonl", '{"\\ud800\\u001b[2J": 1}', "the columns are: '\\ud800\\x1b[2J'"),
    # Labels and texts of every type that JSON and Parquet have
    ("jsonl", third(label=float("nan")), "whole number, found nan"),
    ("jsonl", third(label="l" * 5000), "too long for a name (5,000 characters)"),
    ("jsonl", SOUND.replace('"negative"', "9" * 5000), "Exceeds the limit (4300 digits)"),
    ("jsonl", only(label=True), "only one label (True)"),
    ("parquet", parquet(label=[b"\xff"]), "whole number, found b'\\xff'"),
    ("parquet", parquet(text=[{"a": [1]}]), "text: expected text, found {'a': [1]}"),
    # Too much, or twice
    ("jsonl", lambda: SOUND + json.dumps({"text": "a" * 10**7}), "longer than 8,000,000"),
    ("csv", lambda: HEADER + '"' + "a\n" * 5 * 10**6, "from row 2 on: field larger than field limit"),
    ("jsonl.gz", bomb, "expands to more than 67,108,864 bytes, over 100 times its size"),
    ("parquet.gz", bomb, "rows.parquet.gz: expands to more than"),
    ("jsonl", lambda: as_lines([{"text": "a", "label": i % 2, "domain": i} for i in range(9**5)]), "limit is 1,000;"),
    ("jsonl", SOUND.replace('"id"', '"text"'), "repeated keys: text"),
    ("jsonl", SOUND.replace('"id"', '"label "'), "repeated keys: label"),
    ("jsonl", third(domain="Books"), "'Books' and 'books' differ only in capitals"),
    ("jsonl", Path("rows.jsonl"), "rows.jsonl: no such file"),  # a link to itself
]
DATA: list[tuple[dict[str, Content], str, str]] = [
    *(({f"rows.{kind.split()[0]}": content}, f"{RUN}/rows.{kind}", message) for kind, content, message in FILES),
    ({}, RUN, "no such file or folder"),
    ({"notes.txt": "x"}, RUN, "in: 1 fault - no train (.jsonl, .jsonl.gz, .csv,"),
    ({"train.jsonl": SOUND, "train.csv": HEADER}, RUN, "train: exists as train.csv and train.jsonl; keep one"),
    ({"dataset_dict.json": "{"}, RUN, "the saved dataset cannot be read"),
    ({"train.jsonl": SOUND, "dev.jsonl": third(label="odd")}, RUN, "dev, label: 'odd' (1 rows) does not occur in"),
    ({"train.jsonl": SOUND, "test.jsonl": third(domain="odd")}, RUN, "test, domain: 'odd' (1 rows) does not"),
    ({"train.jsonl": SOUND}, RUN, "no test or dev split to score on; add dev.jsonl"),
    ({"train.jsonl": SOUND, "dev.jsonl": only(domain="books")}, RUN, "dev has no rows of kitchen"),
    ({"train.jsonl": Path("/dev/zero")}, RUN, "train.jsonl: not a regular file"),
    ({"train.jsonl": Path("nowhere"), "dev.jsonl": SOUND}, RUN, "train.jsonl: no such file"),
    # Archives
    ({"a.tar.gz": release(f"../../{FIRST}")}, AMAZON, f"'../../{FIRST}' leads out of"),
    ({"a.tar.gz": release(f"/{FIRST}", mode="w")}, AMAZON, f"'/{FIRST}' leads out"),
    ({"a.tar.gz": release(FIRST, type=tarfile.SYMTYPE, linkname="/etc/passwd")}, AMAZON, f"no {FIRST}"),
    ({"a.tar.gz": release(FIRST, type=tarfile.LNKTYPE, linkname="x")}, AMAZON, f"1 fault - no {FIRST}"),
    ({"a.tar.gz": release(FIRST, mode="w")[:700]}, AMAZON, "neither a folder nor a complete .tar.gz"),
    ({"a.tar.gz": release(f"x/{FIRST}", f"y/{FIRST}")}, AMAZON, f"{FIRST} is in it twice"),
    ({"a.tar.gz": lambda: release("x", size=80 * 2**20)}, AMAZON, "a.tar.gz: expands to more than"),
]
IN_TWO_SPLITS: dict[str, Content] = {"train.jsonl": SOUND, "dev.jsonl": SOUND}
LAUGHS = "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 30))
CONFIGS: list[tuple[Content, str]] = [
    ("seed: 1\n".encode("utf-16"), "config.yaml: not UTF-8 (invalid start byte at byte 1); save it as UTF-8"),
    ("seed: 1\n".encode("utf-16-le"), "config.yaml: contains NUL characters, so it is not UTF-8; save it as UTF-8"),
    ("gama2: 1", "gama2: no such setting; did you mean 'gamma2'?"),
    ("- 1", "expected 'name: value' lines"),
    ("1: 2", "expected 'name: value' lines, one"),
    (f"a0: &a0 [lol]\n{LAUGHS}base: *a29\n", "config.yaml: contains an alias ('*name'); write out the value"),
    ("seed: 1\nseed: 2\n", "config.yaml: repeated keys: seed; keep one"),
    ("base: " + "[" * 4_000, "config.yaml: not valid YAML"),
    ("base: !!python/object/apply:os.system ['touch run']", "could not determine a constructor for the tag"),
    ("base: 2001-13-01", "config.yaml: not valid YAML (month must be in 1..12)"),
    ('encoding: "a\\0b"', "--encoding: contains a NUL character"),
]
FLAGS: list[tuple[str, str]] = [
    ("--alpha 2", "--alpha = '2': Input should be less than or equal to 1"),
    ("--method magic", "choose one of meta_kd, cross_domain"),
    ("--student layers=9", "the base has 4 layers; choose 1 to 4"),
    ("--student nobody/nothing", "nobody/nothing: not found"),
    ("--max-length 512", "this encoder reads at most 40 tokens"),
    ("--layer-map 1", "--layer-map = '1'"),
    ("--base in", "no config.json"),
    ("--base nobody/nothing", "not found as a folder, in the local hub cache or on the hub"),
    ("--base {mpnet} --attention scores", "does not provide raw attention scores"),
    ("--student {one_head} --attention scores", "the teacher has 2 attention heads and the student 1"),
    ("--student {other_words} --terms hidden,prediction --stages two --match-epochs 1", "have different tokenizers"),
    ("--gama2 1", "No such option: --gama2"),
    ("--config none.yaml", "none.yaml: cannot be read"),
    ("--config /dev/zero", "longer than 100,000 characters, so it is not a settings file"),
    ("--gamma1 inf", "--gamma1 = 'inf': Input should be a finite number"),
    ("--match-epochs 3", "only --stages two has a first stage"),
    ("--resume --overwrite", "choose one of them"),
    ("--min-confidence 0.9", "chooses among texts without labels; add --unlabelled"),
    ("--gold-weight 0.2", "--gold-weight: add --soft-labels, which reads"),
    ("--shared-epochs 0 --predict-epochs 0", "at least 1 is needed"),
    ("--teacher-epochs 0", "add --teacher, a fine-tuned classifier; else at least 1 is needed"),
    ("--teacher {base} --teacher-learning-rate 1e-4", "--teacher-learning-rate: has no effect with --teacher-epochs 0"),
    ("--long-texts first --stride 2", "--stride: has no effect with --long-texts first; leave it out"),
    ("--read-length 30", "--read-length: has no effect with --long-texts mean; leave it out"),
    ("--alpha 2 --unlabelled none.csv", "--unlabelled: none.csv: no such file or folder"),
    ("--unlabelled none.csv --alpha 2", "--alpha = '2': Input should be less than"),
    ("--output in/dev.jsonl", "already exists"),
    ("--output {run}", "already exists: continue it with --resume, or replace it with --overwrite"),
    ("--output {run} --resume", "was made with other settings, data, base or precision"),
    ("--output in --overwrite", "in already exists and has no run in it"),
    ("--output in --overwrite --dry-run", "in already exists and has no run in it"),
]
COMMANDS: list[tuple[str, str]] = [
    ("run --output o", "--data is missing"),
    ("run --output in --resume", "--data is missing: in has no run to continue. It takes a file (JSONL"),
    (
        RUN.replace("run", "distill", 1) + " --domain garden --domain attic",
        "--domain garden, attic: no such domain; there are books",
    ),
    ("reproduce {run} --output in", "in already exists and has no run in it"),
    (EXPERIMENT + " --output in", "in already exists and has no experiment in it"),
    (EXPERIMENT + " --output e --baseline --track tensorboard", "--baseline, --track: an experiment sets this"),
    (FIT + " --layer-map 1,2", "--layer-map: fit sets this itself"),
    (FIT + " --method hrkd --shared-epochs 0", "--method = 'hrkd' cannot be used"),
    ("evaluate in", "no run here"),
    ("evaluate {run} --columns text=review", "--overwrite need --data and --output: add these"),
    ("evaluate {run} --data in/dev.jsonl", "go together"),
    ("evaluate {run} --data in/dev.jsonl --output s.json --long-texts first", "models read as the run was scored"),
    ("evaluate {run} --read-length 30", "--read-length: has no effect with --long-texts"),
    (
        "label --data in/dev.jsonl --output in/dev.jsonl --overwrite --model m",
        "is the data, which would be overwritten",
    ),
    ("label --data in/dev.jsonl --output l.jsonl --model m --columns domain=field", "no column 'field' (for domain)"),
    ("predict {base} --input in/dev.jsonl --output in/dev.jsonl --overwrite", "which would be overwritten"),
    ("compare {run}", "name at least two runs"),
    ("evaluate {run} --data in/dev.jsonl --output no/p", "must be a file in an existing folder"),
    ("predict in --input in/dev.jsonl --output p", "no config.json"),
    ("predict x --input in/dev.jsonl --output p", "no such folder"),
    ("predict {base} --input in/dev.jsonl --output in", "must be a file"),
    (
        "predict {base} --input in/dev.jsonl --output p.txt",
        "the name must end in .jsonl or .csv or .parquet",
    ),
    ("predict {base} --input in/dev.jsonl --output p.jsonl.gz", "the name must end in .jsonl"),
    ("predict {base} --input in/dev.jsonl --output in/train.jsonl", "already exists; replace it with --overwrite"),
    ("evaluate {run} --data in/dev.jsonl --output p.csv", "the name must end in .json"),
    ("evaluate {run} --data in/dev.jsonl --output in/train.jsonl", "the name must end in .json"),
    ("predict {base} --input in/dev.jsonl --output p", "not a text classifier"),
    ("predict {run}/students/books --input none.jsonl --output p", "no such file"),
    ("predict {run}/students/books --output p", "Missing option"),
    ("inspect none.csv", "no such file"),
    ("data amazon --source none --output o", "no such file or folder"),
    ("data amazon --source none --output .", "expected the name of a new folder"),
    ("data amazon --source none --output in", "in already exists; choose another --output"),
    ("nothing", "No such command"),
]
CASES = [
    *DATA,
    *((IN_TWO_SPLITS | {"../config.yaml": text}, f"{RUN} --config config.yaml", message) for text, message in CONFIGS),
    *((IN_TWO_SPLITS, f"{RUN} {flags}", message) for flags, message in FLAGS),
    *((IN_TWO_SPLITS, command, message) for command, message in COMMANDS),
]


@pytest.fixture
def shell(metakd: Command, checkpoint: Checkpoint, tmp_path: Path, request: pytest.FixtureRequest) -> Shell:
    """shell("run --base {base}") -> exit code and all that is printed, on one line; {run} is a finished run."""
    request.getfixturevalue("monkeypatch").chdir(tmp_path)
    places = {
        "base": checkpoint(),
        "mpnet": checkpoint("mpnet"),
        "one_head": checkpoint("bert", num_attention_heads=1),
        "other_words": checkpoint("bert", words=[*SPECIALS, "a", "b", "c"]),
    }

    def call(command: str) -> tuple[int, str]:
        run = {"run": request.getfixturevalue("finished_run")} if "{run}" in command else {}
        code, out, err = metakd(*shlex.split(command.format(**places, **run)))
        return code, " ".join((out + err).split())

    return call


def write(files: dict[str, Content]) -> None:
    for name, content in files.items():
        path = Path("in") / name
        path.parent.mkdir(exist_ok=True)
        if isinstance(content, Path):
            path.symlink_to(content)
        else:
            content = content() if callable(content) else content
            path.write_bytes(content if isinstance(content, bytes) else content.encode())


def assert_refused(shell: Shell, command: str, *messages: str) -> None:
    before = {path: path.lstat().st_mtime_ns for path in Path().rglob("*")}
    code, text = shell(command)
    assert code == 2, text
    assert all(message in text for message in messages), text
    assert "Traceback" not in text
    assert {path: path.lstat().st_mtime_ns for path in Path().rglob("*")} == before


@pytest.mark.parametrize(("files", "command", "message"), CASES, ids=[message for *_, message in CASES])
def test_input_that_cannot_be_used(shell: Shell, files: dict[str, Content], command: str, message: str) -> None:
    write(files)
    assert_refused(shell, command, message)


def test_faults_of_data_model_and_method_come_in_one_message(shell: Shell) -> None:
    write({"train.jsonl": third(text="")})
    messages = ("choose one of meta_kd, cross_domain", "row 3, text: is empty", "the base has 4 layers; choose 1 to 4")
    assert_refused(shell, RUN + " --method magic --student layers=9", *messages)


def test_a_loss_that_is_no_number_stops_at_once_and_names_the_term(shell: Shell) -> None:
    write(IN_TWO_SPLITS)
    code, text = shell(RUN + " --teacher-learning-rate 1e30 --warmup 0 --batch-size 4")
    assert code == 2, text
    assert "teach all domains, update 2: the loss term 'class' is not finite. Lower the learning rate" in text
    assert not Path("o/meta_teacher").exists()


def test_a_refused_step_leaves_what_the_run_is_made_of(shell: Shell) -> None:
    """Else the next step would take over what was never done."""
    write(IN_TWO_SPLITS)
    assert shell(RUN.replace("run ", "weigh ", 1))[0] == 0
    assert_refused(shell, "distill --output o --gamma2 5", "no finished meta-teacher")
    unweighted = RUN.replace("run --output o", "weigh --output p") + " --weights none"
    assert_refused(shell, unweighted, "there is nothing to weigh")
    assert_refused(shell, "teach --output o --alpha 0.9", "made with other settings, data, base or precision")


@pytest.mark.parametrize("run_format", [2, None])
def test_overwriting_removes_the_run_and_nothing_else(shell: Shell, run_format: int | None) -> None:
    """Also one that another version of metakd began, which can neither be resumed nor read."""
    write(IN_TWO_SPLITS)
    assert shell(RUN.replace("run ", "weigh ", 1))[0] == 0
    description = Path("o/run.json")
    begun = read_json(description)
    assert begun["format"] == 2
    description.write_text(json.dumps(begun | {"format": run_format}))
    Path("o/mine.txt").write_text("mine")
    if run_format is None:
        for command in ("evaluate o", "weigh --output o", f"{RUN} --resume", RUN.replace("run ", "weigh ", 1)):
            assert_refused(shell, command, "o: made by another version of metakd, which names settings differently")
    fast = "--allow-weak-teacher --teacher-epochs 1 --no-baseline --alpha 0.9"
    assert_refused(shell, f"{RUN} {fast}", "--overwrite")
    assert shell(f"{RUN} {fast} --overwrite --dry-run")[0] == 0
    code, text = shell(f"{RUN} {fast} --overwrite")
    assert code == 0, text
    assert Path("o/mine.txt").read_text() == "mine"
    assert read_json(description)["settings"]["alpha"] == 0.9


def test_a_settings_file_with_lists_where_a_path_belongs(metakd: Command, toy_data: Path, tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text("unlabelled: [a.csv, b.csv]\n")
    answer = refused(metakd("run", "--data", toy_data, "--config", tmp_path / "s.yaml", "--output", tmp_path / "o"))
    assert "--unlabelled = ['a.csv', 'b.csv']: Input should be a valid string" in answer
    assert not (tmp_path / "o").exists()
