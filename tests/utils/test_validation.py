"""Untrusted models and names: nothing in them runs, grows without bounds, or leads out of the run's folder."""

import json
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper
from safetensors.torch import load_file

from conftest import FAST, Command, passed, read_json, write_rows, write_toy
from metakd import Classifier
from metakd.config import settings_file
from metakd.data import faults, readers, schema
from metakd.data.schema import folder_name
from metakd.experiments import releases
from metakd.inference.onnx_backend import OnnxModel
from metakd.models.hub import resolve, tokenizer_file
from metakd.models.loading import load_classifier, load_config, load_encoder, load_tokenizer
from metakd.utils import validation
from metakd.utils.errors import InputError
from metakd.utils.validation import check_sizes, open_tokenizer

LABELS = ["a", "b"]
HOSTILE = ["../x", "CON", "a|b", "<script>alert(1)</script>", "[red]", "ü" * 33]
NO_CONFIG, HEAD = "cannot be used|not an encoder", "BertForSequenceClassification"


@pytest.fixture
def model(base: Path, tmp_path: Path) -> Path:
    """A tiny BERT that may be spoilt."""
    return Path(shutil.copytree(base, tmp_path / "model"))


def spoil(model: Path, **values: Any) -> None:
    (model / "config.json").write_text(json.dumps(read_json(model / "config.json") | values))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"num_hidden_layers": 10**9}, "num_hidden_layers = 1000000000; the limit is 1,000"),
        ({"vocab_size": 1e30}, r"vocab_size = 1e\+30; the limit is 10,000,000"),
        ({"num_labels": 10**9}, "num_labels = 1000000000; the limit is 10,000"),
        ({"hidden_size": 2**30, "vocab_size": 10**12}, "2 faults"),
        ({"vocab_size": 10**7, "hidden_size": 1024}, r"describes 10,.* weights, but the weight files have .* bytes"),
        ({"vocab_size": "many"}, NO_CONFIG),
        ({"hidden_size": -4}, NO_CONFIG),
        ({"model_type": "evil"}, "its configuration cannot be used"),
        ({"model_type": ["bert"]}, "its configuration cannot be used"),
        ({"quantization_config": {"quant_method": "bitsandbytes"}}, "its weights are quantised"),
        ({"id2label": {"5": "x", "7": "y"}, "architectures": [HEAD]}, "has the classes 5, 7; they must be 0, 1"),
    ],
)
def test_a_configuration_that_cannot_be(model: Path, values: dict[str, Any], message: str) -> None:
    spoil(model, **values)
    with pytest.raises(InputError, match=message):
        load_classifier(model) if "id2label" in values else load_encoder(model, LABELS)


@pytest.mark.parametrize("content", ["", "[]", "{", "\xff", "[" * 100_000, '{"model": {"type": "WordPiece"}}'])
def test_a_configuration_or_tokenizer_that_is_none(model: Path, content: str) -> None:
    (model / "tokenizer.json").write_bytes(content.encode("latin-1"))
    for read in (load_tokenizer, lambda folder: open_tokenizer(folder / "tokenizer.json")):
        with pytest.raises(InputError, match="tokenizer"):
            read(model)
    if "model" not in content:
        (model / "config.json").write_bytes(content.encode("latin-1"))
        with pytest.raises(InputError, match=r"config\.json: cannot be read"):
            load_config(model)


def test_files_beside_the_weights_are_bounded(model: Path) -> None:
    """Files with holes: a disk holds nothing of them."""
    for name, size in (("config.json", 11), ("tokenizer.json", 101), ("vocab.txt", 51)):
        large = Path(shutil.copytree(model, model.parent / name))
        with (large / name).open("ab") as file:
            file.truncate(size * 10**6)
        for use in (resolve, tokenizer_file):
            with pytest.raises(InputError, match=f"{name} has {size},000,000 bytes"):
                use(str(large))
    assert resolve(str(model)) == model
    with pytest.raises(InputError, match="owner/name: files besides the weights are too large"):
        check_sizes("owner/name", {"merges.txt": 10**9, "model.safetensors": 10**10})


def test_code_beside_a_model_is_never_run_and_no_kernel_that_it_names(model: Path, tmp_path: Path) -> None:
    (model / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    maps = dict.fromkeys(("AutoConfig", "AutoModelForSequenceClassification", "AutoTokenizer"), "evil.Evil")
    (model / "tokenizer_config.json").write_text(json.dumps({"auto_map": {"AutoTokenizer": ["evil.Evil", None]}}))
    spoil(model, auto_map=maps)
    load_encoder(model, LABELS)  # BERT is the library's own, whatever else is offered
    spoil(model, auto_map=maps, model_type="evil")
    for load in (load_config, load_tokenizer, lambda folder: load_encoder(folder, LABELS)):
        with pytest.raises(InputError):
            load(model)
    assert not (tmp_path / "ran").exists()
    spoil(model, model_type="bert", attn_implementation="someone/kernels", experts_implementation="someone/kernels")
    assert load_config(model)._attn_implementation is None
    assert load_encoder(model, LABELS).config._attn_implementation.startswith("metakd")


@pytest.mark.parametrize("zipped", [True, False])
def test_old_weights_that_carry_code_are_refused(model: Path, tmp_path: Path, zipped: bool) -> None:
    """And the same file with weights alone is read."""

    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.mkdir, (str(tmp_path / "ran"),)

    weights = load_file(model / "model.safetensors")
    (model / "model.safetensors").unlink()
    file = model / "pytorch_model.bin"
    for plain_pickle in (False, True):
        torch.save(weights | {"evil": Evil()}, file, _use_new_zipfile_serialization=zipped)
        if plain_pickle:
            file.write_bytes(pickle.dumps(Evil()))
        with pytest.raises(InputError, match="not an encoder that can classify text"):
            load_encoder(model, LABELS)
    assert not (tmp_path / "ran").exists()
    torch.save(weights, file, _use_new_zipfile_serialization=zipped)
    assert load_encoder(model, LABELS).config.num_labels == 2


def test_an_index_names_files_of_its_folder_alone(model: Path) -> None:
    for place in ("../other/model.safetensors", "/etc/passwd"):
        (model / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"bert.x": place}}))
        with pytest.raises(InputError, match="which is not a file in this folder"):
            load_encoder(model, LABELS)


def test_an_exported_model_has_a_name_for_every_class(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    session = SimpleNamespace(get_outputs=lambda: [SimpleNamespace(shape=[None, 2])], get_inputs=list)
    monkeypatch.setattr("metakd.inference.onnx_backend._session", lambda *_: session)
    for labels in (["a"], ["a", 7], list("abc")):
        with pytest.raises(InputError, match="labels: expected 2 names"):
            OnnxModel(tmp_path, None, {"labels": labels, "max_length": 8, "pad_token_id": 0}, 1)  # type: ignore[arg-type]


def test_an_exported_model_reads_no_file_of_another_folder(tmp_path: Path, base: Path) -> None:
    """ONNX Runtime's own check, on which docs/security.md relies."""
    (tmp_path / "weights.bin").write_bytes(bytes(16))
    weights = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4], data_location=TensorProto.EXTERNAL)
    weights.external_data.add(key="location", value="../../weights.bin")
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [4]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Add", ["x", "w"], ["y"])], "g", ends[:1], ends[1:], [weights])
    whole = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    (tmp_path / "model" / "onnx").mkdir(parents=True)
    (tmp_path / "model" / "onnx" / "model.onnx").write_bytes(whole.SerializeToString())
    shutil.copy(base / "tokenizer.json", tmp_path / "model")
    (tmp_path / "model" / "model.json").write_text('{"labels": ["a"], "pad_token_id": 0, "max_length": 8}')
    with pytest.raises(InputError, match="External data path"):
        Classifier.from_pretrained(tmp_path / "model")


PATHS = ["/etc", "..", ".", "nul", "com1", "~root", "\0", "a\0b", "aux.txt", "LPT9", "prn ", "c:\\x", "\\\\host\\x"]


def test_a_domain_is_never_a_path(tmp_path: Path) -> None:
    """One component that is made below a folder, of letters that every file system takes, and no device of Windows."""
    devices = ("con", "prn", "aux", "nul", *(d + i for d in ("com", "lpt") for i in "0123456789"))
    for folder in map(folder_name, [*HOSTILE, *PATHS]):
        assert (tmp_path / folder).resolve().parent == tmp_path
        (tmp_path / folder).mkdir()
        assert not set('<>:"/\\|?*.\0') & set(folder)
        assert folder.casefold() not in devices
    folders = {"con": "%63on", "CON": "%43ON", "Lpt1": "%4Cpt1", "%63on": "%2563on", "console": "console"}
    assert [folder_name(name) for name in folders] == [*folders.values()]


ANY_NAME = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)


@given(ANY_NAME, ANY_NAME)
def test_two_domains_have_two_folders(one: str, other: str) -> None:
    assert (folder_name(one) == folder_name(other)) == (one == other)
    if folder_name(one).casefold() == folder_name(other).casefold():
        assert one.casefold() == other.casefold()


@pytest.mark.slow
def test_a_run_with_hostile_names_stays_in_its_folder(
    tmp_path: Path, base: Path, metakd: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One example a domain, too: everything is learnt, scored and reported, and nothing lies beside the run."""
    kinds = {"text": "a bad pan", "label": "nul"}, {"text": "a good pan", "label": "<b>|../l"}
    rows = [kinds[i % 2] | {"domain": name} for i, name in enumerate(HOSTILE)]
    for split in ("train", "dev"):
        write_rows(tmp_path / "deep" / "data" / f"{split}.jsonl", rows)
    monkeypatch.chdir(tmp_path / "deep")
    few = "--teacher-epochs 1 --predict-epochs 0 --match-epochs 0 --no-baseline --shared-epochs 1"
    out, _ = passed(metakd("run", "--data", "data", "--base", base, "--output", "out", *FAST, *few.split()))
    assert {path.name for path in tmp_path.iterdir()} == {"deep"}
    assert {path.name for path in Path().iterdir()} == {"data", "out"}
    assert {path.name for path in Path("out/students").iterdir()} == set(map(folder_name, HOSTILE))
    assert "a\\|b" in Path("out/results.md").read_text()
    assert "[red]" in out
    page = Path("out/report.html").read_text()
    assert "<script>alert(1)" not in page
    assert "<b>|../l" not in page


def test_the_limits_in_the_docs_are_those_of_the_code() -> None:
    page = (Path(__file__).parents[2] / "docs" / "security.md").read_text(encoding="utf-8")
    sizes = [f"{validation.CONFIG_LIMITS[name]:,}" for name in ("num_hidden_layers", "hidden_size", "vocab_size")]
    megabytes = [f"{size // 10**6} MB" for size in (*validation.SIZE_LIMITS.values(), validation.OTHER_SIZE_LIMIT)]
    for limit in (
        f"| {readers.LONGEST_ROW:,} characters |",
        f"| {readers.ALWAYS_EXPANDED // 2**20} MiB, or {readers.MOST_EXPANDED} times its size |",
        f"| a file of an Amazon release | {releases.REVIEW_FILE // 2**20} MiB |",
        f"| {faults.MOST_DOMAINS:,}; {schema.MOST_LABELS:,} |",
        f"end at {faults.LONGEST_FOLDER} of the encoded name) | {faults.LONGEST_NAME:,} characters |",
        f"| a file of settings | {settings_file.LONGEST_FILE:,} characters |",
        f"| {'; '.join(megabytes)} |",
        f"| {'; '.join(sizes)} |",
    ):
        assert limit in page, limit


@pytest.mark.slow
def test_a_whole_run_unpickles_nothing_but_by_weights_only(tmp_path: Path, model: Path) -> None:
    """Base in old .bin weights, stopped at its first checkpoint and gone on with; the hook is shown to hear."""
    torch.save(load_file(model / "model.safetensors"), model / "pytorch_model.bin")
    (model / "model.safetensors").unlink()
    data = write_toy(tmp_path / "data", train=48, dev=16)
    few = "--teacher-epochs 3 --shared-epochs 1 --predict-epochs 1 --match-epochs 1"
    command = [sys.executable, Path(__file__).parents[1] / "training" / "audited_run.py", tmp_path / "out", model]
    command += ["run", "--data", data, "--base", model, "--output", tmp_path / "out", *FAST, *few.split()]
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    audit = json.loads(done.stdout.strip().splitlines()[-1])
    assert audit["stopped"], "no checkpoint to go on from"
    assert audit["code"] == ["0"], done.stderr
    assert (tmp_path / "out" / "results.json").is_file()
    assert audit["hook_hears"]
    assert {"optimizer.pt", "scheduler.pt", "rng_state.pth", "pytorch_model.bin"} <= set(audit["loads"])
    assert audit["classes"] == audit["unsafe"] == audit["outside"] == []
