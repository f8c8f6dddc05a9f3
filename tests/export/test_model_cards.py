"""Model cards: what the hub reads of them, and how they are uploaded."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub import ModelCard
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.utils import validate_repo_id

from conftest import Command, passed, refused
from metakd.data.windows import Reading
from metakd.export.model_cards import Measured, push, write_card
from metakd.utils.errors import InputError

RUN = {
    "settings": {"base": "sentence-transformers/all-MiniLM-L6-v2", "method": "meta_kd"},
    "data": "reviews",
    "labels": ["negative", "positive"],
    "licences": {"base": "apache-2.0", "data": None},
}


def test_the_hub_reads_the_card(tmp_path: Path) -> None:
    measured, notes = Measured(0.85714, 8_940_000, 2.41), ["On texts of other domains: 80.0, before 81.0."]
    write_card(tmp_path, RUN, "books: new", "layers=3, int8", Reading(max_length=16), measured, "test", 140, notes)
    card = ModelCard.load(tmp_path / "README.md")
    (score,) = card.data.eval_results or []
    assert (score.metric_type, score.metric_value, score.dataset_split) == ("accuracy", 0.8571, "test")
    assert card.data.license == "apache-2.0"
    assert card.data.base_model == RUN["settings"]["base"]  # type: ignore[index]
    assert card.data.pipeline_tag == "text-classification"
    row, note = "| test | 140 | 85.7 | 8.9 | 2.41 |", "- On texts of other domains"
    assert not [text for text in (row, note, "Licence: not stated", "`negative`") if text not in card.text]


class Hub:
    """The part of the hub that is used; it keeps its calls and refuses `refused`, or everything."""

    def __init__(self, refused: str = "") -> None:
        self.calls: list[tuple[str, Any]] = []
        self.refused, self.public = refused, set[str]()

    def _check(self, name: str) -> None:
        if self.refused and self.refused in name:
            raise HfHubHTTPError("401 Unauthorized", response=SimpleNamespace(headers={}, request=None))  # type: ignore[arg-type]

    def whoami(self) -> None:
        self._check("all")

    def create_repo(self, repo_id: str, *, private: bool, exist_ok: bool) -> Any:
        self._check(repo_id)
        self.calls.append((repo_id, private))
        return SimpleNamespace(repo_id=repo_id, __str__=lambda self: repo_id)

    def repo_info(self, repo_id: str) -> Any:
        return SimpleNamespace(private=repo_id not in self.public)

    def upload_folder(
        self, *, repo_id: str, folder_path: Path, commit_message: str, delete_patterns: list[str]
    ) -> None:
        assert delete_patterns == ["onnx/*"]  # weights of an earlier upload, in another precision
        self.calls.append((repo_id, sorted(path.name for path in folder_path.iterdir())))


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Hub:
    fake = Hub(getattr(request, "param", ""))
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: fake)
    return fake


def test_each_domain_has_a_private_repository(tmp_path: Path, hub: Hub) -> None:
    (tmp_path / "model.onnx").write_bytes(b"")
    domains = ["books", "bücher & more", "b cher, more", "b-cher-more-2", "Home -- and everything for the garden", "--"]
    push(dict.fromkeys(domains, tmp_path), "me/reviews")
    ends = ["books", "b-cher-more", "b-cher-more-2", "b-cher-more-2-2", "Home-and-everything-for-the-garden", "domain"]
    names = [f"me/reviews-{end}" for end in ends]
    for name in names:
        validate_repo_id(name)
    assert hub.calls[::2] == [(name, True) for name in names]
    assert hub.calls[1::2] == [(name, ["model.onnx"]) for name in names]


@pytest.mark.parametrize("hub", ["kitchen"], indirect=True)
def test_a_refusal_names_what_was_uploaded_and_what_to_do(tmp_path: Path, hub: Hub) -> None:
    with pytest.raises(InputError, match=r"kitchen was not uploaded.*hf upload.*uploaded before"):
        push({"books": tmp_path, "kitchen": tmp_path}, "me/reviews")


def test_nothing_is_uploaded_to_a_public_repository(tmp_path: Path, hub: Hub) -> None:
    """A repository that is there already stays as public as it is."""
    hub.public = {"me/reviews-kitchen"}
    with pytest.raises(InputError, match=r"reviews-kitchen is there already and is public.*uploaded before: .*books"):
        push({"books": tmp_path, "kitchen": tmp_path}, "me/reviews")
    assert [name for name, what in hub.calls if isinstance(what, list)] == ["me/reviews-books"]


@pytest.mark.slow
def test_an_export_is_uploaded_on_request(finished_run: Path, metakd: Command, tmp_path: Path, hub: Hub) -> None:
    """And has cards."""
    export = ("export", finished_run, "--force", "--output")
    passed(metakd(*export, tmp_path / "quiet"))
    assert not hub.calls
    assert ModelCard.load(tmp_path / "quiet" / "books" / "README.md").data.eval_results
    out, _ = passed(metakd(*export, tmp_path / "up", "--push-to-hub", "me/toy"))
    assert out.count("uploaded: ") == 2
    assert {name for name, _ in hub.calls} == {"me/toy-books", "me/toy-kitchen"}


@pytest.mark.parametrize("hub", ["all"], indirect=True)
@pytest.mark.usefixtures("hub")
def test_the_login_is_checked_before_anything_is_exported(finished_run: Path, metakd: Command, tmp_path: Path) -> None:
    message = refused(metakd("export", finished_run, "--output", tmp_path / "up", "--push-to-hub", "me/toy"))
    assert "log in with `hf auth login`" in message
    assert not (tmp_path / "up").exists()
