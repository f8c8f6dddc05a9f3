"""The page of `metakd export --web` in a real browser: the same answers as in Python, and no other network."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page

from conftest import Command, as_row, open_run, read_json, refused, reopen, taught, toy_examples, write_rows
from metakd import Classifier, InputError
from metakd.data.schema import folder_name
from metakd.export import exporter, web_page
from metakd.export.onnx_format import quantize, write_model
from metakd.export.standard_files import PRECISIONS
from metakd.inference.layout import WHOLE
from metakd.inference.torch_backend import TorchModel
from metakd.models.class_head import find_head
from metakd.pipeline.distill import distill_all
from metakd.pipeline.evaluate import evaluate
from metakd.utils.artifacts import write_json
from other_clients import CLIENTS, answers, npm, opened

pytestmark = pytest.mark.xdist_group("web_page")  # in one process, as fixtures take long

TEXTS = ["a lovely page", "dull prose", "<b>bad</b> & worse", "dull prose " * 9 + "lovely page " * 9]
OTHER = "Büro & <Co>"  # a domain whose name is no word of an address


@pytest.fixture(scope="module")
def site(finished_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The exports of a run with their page: that of books in float32, the other in int8 and with another name."""
    output = tmp_path_factory.mktemp("site") / "models"
    with npm():
        exporter.export(reopen(finished_run), output, int8=False, web=True, force=True)
    other = (output / "kitchen").rename(output / folder_name(OTHER))
    quantize(other)
    (other / "manifest.json").unlink()  # it is not as it was exported
    config = read_json(other / "config.json")
    write_json(other / "config.json", config | {"transformers.js_config": {"dtype": PRECISIONS[True]}})
    web_page.write_page(output, {"books": "books", OTHER: folder_name(OTHER)})
    return output


@pytest.fixture
def messages() -> list[str]:
    """Those of the browser's console."""
    return []


@pytest.fixture
def page(site: Path, messages: list[str]) -> Iterator[Page]:
    with opened(site, messages) as page:
        yield page


def test_the_page_says_what_python_says(page: Page, site: Path) -> None:
    """In both domains, of short texts and of one of several windows; the likeliest label first.

    In int8, numbers are scaled by batch, so here each window is alone in Python as well. Processors and WebAssembly
    round differently, and over several windows that adds up.
    """
    for domain, off, off_in_all in (("books", 0.06, 0.06), (OTHER, 2, 5)):
        page.get_by_label("Domain").select_option(domain)
        classifier = Classifier.from_pretrained(site / folder_name(domain))
        classifier.model.read_as(classifier.reading.model_copy(update={"enough": 1.0}))  # one after the other
        for text in TEXTS:
            most = off_in_all if text == TEXTS[-1] else off
            expected = classifier.predict([text], top_k=2)[0]
            shown = answers(page, text)
            assert [*shown] == [each.label for each in expected]
            assert [*shown.values()] == pytest.approx([100 * each.probability for each in expected], abs=most)
    assert answers(page, "  ") == {}


def test_it_is_readable_for_everyone(page: Page) -> None:
    """In light and dark, wide and on a phone, where nothing sticks out."""
    answers(page, TEXTS[0])
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
        for width in (1280, 360):
            page.set_viewport_size({"width": width, "height": 800})
            assert Axe().run(page).response["violations"] == []
            assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


def test_a_model_that_is_missing_is_said(page: Page, messages: list[str], site: Path) -> None:
    assert answers(page, TEXTS[0])
    shutil.move(site / folder_name(OTHER), site.parent / "aside")
    try:
        page.get_by_label("Domain").select_option(OTHER)
        page.get_by_text("The model cannot be used").wait_for()
        assert page.locator("#answers li").count() == 0
        assert messages == ["Failed to load resource: the server responded with a status of 404 (File not found)"]
        messages.clear()
    finally:
        shutil.move(site.parent / "aside", site / folder_name(OTHER))
    assert answers(page, TEXTS[0])  # once it is back


@pytest.mark.slow
def test_other_models_at_the_same_address_are_read(page: Page, site: Path, finished_run: Path, tmp_path: Path) -> None:
    """Not those that the browser has kept."""
    before = answers(page, TEXTS[0])
    model = site / "books" / WHOLE
    weights = model.read_bytes()
    try:
        other = TorchModel.load(finished_run / "students" / "books", "cpu")
        head = find_head(other.network)
        assert head is not None
        with torch.no_grad():
            head.weight.neg_()
            head.bias.neg_()  # the other label is as likely as this one was
        write_model(other, tmp_path / "m", toy_examples(8, 0, "t"))
        shutil.copy(tmp_path / "m" / WHOLE, model)
        page.reload()
        page.wait_for_selector("html[data-ready]")
        assert answers(page, TEXTS[0]) != before
    finally:
        model.write_bytes(weights)


def test_pairs_have_no_page(base: Path, tmp_path: Path) -> None:
    rows = [as_row(e) | {"text_pair": "a page"} for e in toy_examples(32, 0, "t")]
    for split, count in (("train", 32), ("test", 8)):
        write_rows(tmp_path / f"{split}.jsonl", rows[:count])
    run = taught(open_run(tmp_path / "run", tmp_path, base, baseline=False, domain_loss="none"))
    distill_all(run, run.data.domains, run.methods)
    evaluate(run)
    with pytest.raises(InputError, match="web: the page reads single texts"):
        exporter.export(run, tmp_path / "models", int8=False, web=True)


def test_without_npm_the_message_says_so(
    finished_run: Path, metakd: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    message = refused(metakd("export", finished_run, "--output", tmp_path / "models", "--web"))
    assert "--web needs npm, which comes with Node.js" in message
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize(
    ("script", "message"),
    [
        (
            "echo 'npm error no such host' >&2; exit 1",
            "npm cannot fetch @huggingface/transformers@4.3.2 (npm error no such host)",
        ),
        ('echo other > "$4/package.tgz"', "is not the archive that metakd was tested with"),
    ],
)
def test_archives_that_are_others_are_refused(
    script: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    npm = tmp_path / "npm"
    npm.write_text(f"#!/bin/sh\n{script}\n")
    npm.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    with pytest.raises(InputError) as raised:
        web_page.fetch_library(tmp_path / "web")
    assert message in str(raised.value)


def test_the_page_and_node_have_one_version() -> None:
    """The archives' hashes are those of the lock file."""
    packages = read_json(CLIENTS / "package-lock.json")["packages"]
    for package in web_page.PACKAGES:
        locked = packages[f"node_modules/{package.name}"]
        assert (locked["version"], locked["integrity"]) == (package.version, f"sha512-{package.sha512}")
