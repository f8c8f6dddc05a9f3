"""A model card for each exported model, in the hub's format, and the upload to the hub on request."""

import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain, count
from pathlib import Path
from typing import Any, NamedTuple

import huggingface_hub

from metakd.data.windows import SHORTEST, Reading
from metakd.inference.calibration import recorded_calibration
from metakd.inference.thresholds import HALF
from metakd.models.hub import public_name
from metakd.utils.artifacts import write_text
from metakd.utils.errors import InputError, as_input_error
from metakd.utils.hardware import environment

CARD_FILE, TEMPLATE = "README.md", Path(__file__).with_name("model_card.md")


SINGLE = "Without metakd, truncate with this stride: `overflowing` of an encoding has the further windows."
SEVERAL_LABELS = (
    "A text may have several of its labels, or none: each has a probability by itself, the sigmoid of its logit, and "
    "is given above its threshold (`thresholds` in model.json, in the order of `labels`). Accuracy is the share of "
    "texts whose labels are all right."
)
BUSY = "Its latency is too high: other processes used the cores while it was measured."
COMPACT = "Its embeddings are exact for the most frequent tokens of this domain, approximate for others."
CHOSEN_ON_DEV = "Its form was chosen on the same texts, so on others expect a little less."
MOST_CHARACTERS = 40  # of a domain in a repository's name
PAIRS = "The longer text is cut; the other stands beside each window, with at most half of its tokens."


def in_words(student: str, int8: bool, compact: bool) -> str:
    """What is exported, in words, without private folders."""
    precision, table = "int8" if int8 else "float32", "compact" if compact else "whole"
    return f"{public_name(student)}, {precision}, {table} table"


class Measured(NamedTuple):
    """A model: its accuracy on a domain's held-out examples, and what it costs."""

    accuracy: float
    bytes: int  # weights, tokenizer, configuration
    milliseconds: float  # median of one text of any domain at a time, tokenising included


def write_card(
    folder: Path,
    run: Mapping[str, Any],
    domain: str,
    form: str,
    reading: Reading,
    measured: Measured,
    split: str,
    examples: int,
    notes: Sequence[str] = (),
) -> None:
    """Write README.md of one domain's model into `folder`, with a model-index that the hub reads.

    Args:
        run: The description of the run that trained it.
        form: What was exported, in words.
        reading: How it reads long texts.
        measured: Its scores and costs on `examples` rows of `split`.
        notes: What else was measured, one of the card's points each.
    """
    licences, machine = run["licences"], environment()
    scores = (f"{100 * measured.accuracy:.1f}", f"{measured.bytes / 1e6:.1f}", f"{measured.milliseconds:.2f}")
    text = TEMPLATE.read_text(encoding="utf-8").format(
        domain=domain,
        labels=", ".join(f"`{label}`" for label in run.get("classes", {}).get(domain, run["labels"])),
        method=run["settings"]["method"],
        form=f"{form}, {reading}",
        long_texts=_long_texts(reading, bool(run.get("pairs")), bool(run.get("several_labels"))),
        scores=" | ".join((split, str(examples), *scores)),
        machine=f"{machine['processor']}, {machine['cores']} cores",
        data=_data_name(run),
        data_licence=licences.get("data") or "not stated",
        notes="".join(f"- {note}\n" for note in [*[SEVERAL_LABELS] * bool(run.get("several_labels")), *notes]),
        base=public_name(run["settings"]["base"]),
        licence=licences.get("base") or "not stated",
    )
    write_text(folder / CARD_FILE, f"---\n{_metadata(run, domain, form, measured, split)}\n---\n\n{text}")


def calibration_notes(calibration: Mapping[str, Any], domain: str, reading: str, split: str) -> list[str]:
    """Points of a card on what dev has decided of a student: which of several labels it gives, and how sure it is.

    Args:
        calibration: As in results.json.
        domain: The student's.
        reading: How texts were read meanwhile.
        split: What the export was scored on.
    """
    temperature, thresholds = recorded_calibration(calibration, domain)
    notes = []
    if {*thresholds} - {HALF}:
        between = f"from {min(thresholds):.2f} to {max(thresholds):.2f}"
        too_high = ", so its accuracy on dev is slightly too high" if split == "dev" else ""
        notes.append(f"Its thresholds are {between}, chosen on dev by F1{too_high}.")
    if temperature == 1:
        return notes
    before, after = calibration["before"], calibration["after"]
    loss, error, plain = (
        f"{after[of]:.3f} ({before[of]:.3f} without)" for of in ("log_likelihood_loss", "calibration_error", "ece")
    )
    return [
        *notes,
        f"Its probabilities are calibrated: logits were divided by {temperature:.2f}. On {calibration['texts']} rows "
        f"of dev in all domains, cross-fitted, before the export ({reading}), the negative log-likelihood is {loss}, "
        f"the calibration error {error}. Without correction for chance that error is {plain}; exact probabilities "
        f"would show {after['ece_of_chance']:.3f} on so many rows.",
    ]


def parity_note(texts: int, same_label: int, difference: float) -> str:
    """A point of a card: how far the file agreed with PyTorch before it was delivered."""
    return (
        f"Checked before it was delivered: of {texts} real texts, this file gives {same_label} the label that the "
        f"model has in PyTorch; probabilities differ by at most {difference:.2g}."
    )


def _long_texts(reading: Reading, pairs: bool, several: bool) -> str:
    """What the model reads of a long text, and how to do that without metakd."""
    if reading.most_windows == 1:
        return f"It reads the first {reading.max_length} tokens of a text; truncate longer ones."
    sure = f" until, as if they were independent, the likeliest label has a probability of {reading.enough}"
    until = sure if reading.enough is not None else ""
    shortest = max(1, reading.max_length // SHORTEST)
    mean = "the sigmoid of the mean of their logits" if several else "the mean of their log-probabilities, normalised"
    short = f"A last window with fewer than about {shortest} new tokens is left out. "
    return (
        f"Of a {'pair' if pairs else 'text'} longer than {reading.max_length} tokens it reads windows of that length, "
        f"each with a stride of {reading.stride}, up to {reading.most_windows} of them{until}. {short}Its answer is "
        f"{mean}. " + (PAIRS if pairs else SINGLE)
    )


def _data_name(run: Mapping[str, Any]) -> str:
    return public_name(run["data"] or "tables in memory")


def _metadata(run: Mapping[str, Any], domain: str, form: str, measured: Measured, split: str) -> str:
    """The YAML at the head of a card."""
    score = huggingface_hub.EvalResult(
        task_type="text-classification",
        dataset_type=_data_name(run),
        dataset_name=f"{_data_name(run)}, {domain}",
        dataset_split=split,
        metric_type="accuracy",
        metric_value=round(measured.accuracy, 4),
    )
    return huggingface_hub.ModelCardData(
        model_name=f"{domain} ({form})",
        license=_licence_id(run["licences"].get("base")),
        base_model=public_name(run["settings"]["base"]),
        library_name="onnxruntime",
        pipeline_tag="text-classification",
        tags=["metakd", "knowledge-distillation", "onnx"],
        eval_results=[score],
    ).to_yaml()


def _licence_id(stated: str | None) -> str:
    """As the hub takes it: an identifier, not the name of a file."""
    return stated if stated and re.fullmatch(r"[\w.-]+", stated) else "other" if stated else "unknown"


def check_login() -> None:
    """Raise InputError if nobody is logged in to the hub, before the work for an upload is done."""
    with as_input_error("--push-to-hub: not logged in; log in with `hf auth login`", (OSError, ValueError)):
        huggingface_hub.HfApi().whoami()


def push(folders: Mapping[str, Path], prefix: str) -> list[str]:
    """Upload each domain's folder as the private repository PREFIX-DOMAIN; returns the addresses.

    Raises InputError if that fails.
    """
    api, addresses = huggingface_hub.HfApi(), list[str]()
    for (domain, folder), name in zip(folders.items(), _repository_names(folders), strict=True):
        uploaded = f"; uploaded before: {', '.join(addresses)}" if addresses else ""
        failure = (
            f"--push-to-hub {prefix}: {domain} was not uploaded; use your own namespace, for example me/reviews. The "
            f"export is complete, so you can also upload it with `hf upload`{uploaded}"
        )
        with as_input_error(failure, (OSError, ValueError)):
            address = api.create_repo(f"{prefix}-{name}", private=True, exist_ok=True)
            if not api.repo_info(address.repo_id).private:
                raise InputError(
                    f"--push-to-hub {prefix}: {address.repo_id} is there already and is public, so {domain} was not "
                    f"uploaded; choose another prefix, or make it private on the hub{uploaded}"
                )
            api.upload_folder(
                repo_id=address.repo_id,
                folder_path=folder,
                commit_message="Exported by metakd",
                delete_patterns=["onnx/*"],  # of an earlier export
            )
        addresses.append(str(address))
    return addresses


def _repository_names(domains: Iterable[str]) -> list[str]:
    """Each domain as part of a repository's name: letters, digits, '_' and single '-', no two alike."""
    names: list[str] = []
    for domain in domains:
        name = re.sub(r"[^A-Za-z0-9_]+", "-", domain).strip("-")[:MOST_CHARACTERS].strip("-") or "domain"
        others = (f"{name}-{number}" for number in count(2))
        names.append(next(each for each in chain([name], others) if each not in names))
    return names
