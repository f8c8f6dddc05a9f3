"""Model cards: what the hub reads of them, and how they get there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub import ModelCard
from huggingface_hub.errors import HfHubHTTPError

from metakd.export.model_cards import Card, push
from metakd.utils.errors import InputError

Command = Callable[..., Any]
CARD = Card(
    domain="books: new",
    labels=["negative", "positive"],
    base="sentence-transformers/all-MiniLM-L6-v2",
    method="meta_kd",
    form="layers=3, int8",
    data="reviews",
    split="test",
    examples=140,
    accuracy=0.85714,
    megabytes=8.94,
    milliseconds=2.41,
    licences={"base": "apache-2.0", "data": None},
    notes=["On texts of other domains: 80.0, before 81.0."],
)


def test_the_hub_reads_what_the_card_says(tmp_path: Path) -> None:
    CARD.write(tmp_path)
    card = ModelCard.load(tmp_path / "README.md")
    (score,) = card.data.eval_results or []
    assert (score.metric_type, score.metric_value, score.dataset_split) == ("accuracy", 0.8571, "test")
    assert card.data.license == "apache-2.0"
    assert card.data.base_model == CARD.base
    assert card.data.pipeline_tag == "text-classification"
    for told in (
        "| test | 140 | 85.7 | 8.9 | 2.41 |",
        "- On texts of other domains",
        "Licence: not stated",
        "`negative`",
    ):
        assert told in card.text


class Hub:
    """The part of the hub that is used, with a folder as its disk."""

    def __init__(self, known: list[tuple[str, Any]], refuse: str = "") -> None:
        self.known, self.refuse = known, refuse

    def whoami(self) -> None:
        if self.refuse == "all":
            raise HfHubHTTPError("401 Unauthorized", response=SimpleNamespace(headers={}, request=None))  # type: ignore[arg-type]

    def create_repo(self, repo_id: str, *, private: bool, exist_ok: bool) -> Any:
        if self.refuse and self.refuse in repo_id:
            raise HfHubHTTPError("401 Unauthorized", response=SimpleNamespace(headers={}, request=None))  # type: ignore[arg-type]
        self.known.append((repo_id, private))
        return SimpleNamespace(repo_id=repo_id, __str__=lambda self: repo_id)

    def upload_folder(self, *, repo_id: str, folder_path: Path, commit_message: str) -> None:
        self.known.append((repo_id, sorted(path.name for path in folder_path.iterdir())))


def test_each_domain_goes_to_a_private_place_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known: list[tuple[str, Any]] = []
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: Hub(known))
    (tmp_path / "model.onnx").write_bytes(b"")
    push({"books": tmp_path, "bücher & more": tmp_path, "b cher & more": tmp_path}, "me/reviews")
    assert known[::2] == [
        ("me/reviews-books", True),
        ("me/reviews-b-cher---more", True),
        ("me/reviews-b-cher---more-3", True),
    ]
    assert known[1] == ("me/reviews-books", ["model.onnx"])


def test_a_refusal_says_what_is_there_already_and_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: Hub([], refuse="kitchen"))
    with pytest.raises(InputError, match=r"kitchen was not uploaded .*hf upload.*uploaded before"):
        push({"books": tmp_path, "kitchen": tmp_path}, "me/reviews")


def test_an_export_has_cards_and_is_uploaded_only_when_asked(
    finished_run: Path, metakd: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known: list[tuple[str, Any]] = []
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: Hub(known))
    code, _, err = metakd("export", finished_run, "--output", tmp_path / "quiet", "--force")
    assert code == 0, err
    assert not known
    assert ModelCard.load(tmp_path / "quiet" / "books" / "README.md").data.eval_results
    code, out, err = metakd("export", finished_run, "--output", tmp_path / "up", "--force", "--push-to-hub", "me/toy")
    assert code == 0, err
    assert out.count("uploaded: ") == 2
    assert {name for name, _ in known} == {"me/toy-books", "me/toy-kitchen"}


def test_who_uploads_is_asked_before_anything_is_exported(
    finished_run: Path, metakd: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: Hub([], refuse="all"))
    code, _, err = metakd("export", finished_run, "--output", tmp_path / "up", "--push-to-hub", "me/toy")
    assert (code, "log in by `hf auth login`" in " ".join(err.split())) == (2, True)
    assert not (tmp_path / "up").exists()
