"""The texts of a file, each with the probabilities that a model gives the labels."""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from metakd.data.schema import Example
from metakd.labelling.answers import AllRefusedError, Answers
from metakd.labelling.prompts import Task
from metakd.labelling.zero_shot import with_shares
from metakd.utils.artifacts import write_text
from metakd.utils.console import notice, progress_bar
from metakd.utils.errors import InputError, listed
from metakd.utils.signals import graceful_shutdown

DIGITS = 6  # of a probability


class Scorer(Protocol):
    """A language model that can be asked."""

    identity: str  # of all that its scores depend on

    def shortened(self, text: str) -> str:
        """The beginning of a text, as long as it may be."""

    def scores(
        self, prompts: Sequence[str], words: Sequence[str]
    ) -> Iterator[tuple[list[int], Sequence[list[float] | None]]]:
        """Rows of prompts, and the logarithms of the words' probabilities, (B, M), up to a constant for each row.

        None stands for an answer that names no label. After a signal (`stop_requested`), it soon ends.
        """


def ask_all(
    scorer: Scorer, examples: Sequence[Example], task: Task, answers: Answers
) -> tuple[list[Example], list[list[float]]]:
    """The texts for which an answer names a label, and the scores of the labels, (N, M), for these.

    Args:
        scorer: The model.
        examples: The texts.
        task: Prompt and words.
        answers: What the model has answered before, which is not asked again; gets the rest.

    Raises:
        InputError: No answer names a label.
    """
    prompts = [task.ask(_shortened(scorer, e)) for e in examples]
    _ask(scorer, prompts, task, answers)
    answered = [(e, s) for e, p in zip(examples, prompts, strict=True) if (s := answers.scores(p)) is not None]
    if len(answered) < len(examples):
        notice(f"{len(examples) - len(answered):,} texts are left out: no answer named a label, or they were refused")
    if not answered:
        raise InputError(f"no answer named a label; change --prompt, or delete {answers.path} to ask again")
    return [e for e, _ in answered], [s for _, s in answered]


def write_labels(
    examples: Sequence[Example], scores: Tensor, labels: Sequence[str], output: Path, correct_prior: bool
) -> str:
    """Write each text with the probabilities of the labels, and say how many are right, where that is known.

    Args:
        examples: The texts; those with a label say how frequent the labels are.
        scores: (N, M), the logarithms of the probabilities, up to a constant for each text.
        labels: M names.
        output: A JSONL file, as `--soft-labels` reads it.
        correct_prior: Whether the labels' mean probabilities are made equal to their shares of the rows that have one,
            as if each label had one more.
    """
    counts = Counter(e.label for e in examples if e.label)
    probabilities = scores.double().softmax(-1)
    if correct_prior:
        if not counts:
            notice("no row has a label, so all are taken to be equally frequent; if they are not: --no-correct-prior")
        else:
            shares = [f"{label} {(counts[label] + 1) / (counts.total() + len(labels)):.0%}" for label in labels]
            notice(f"label frequencies, counted in the rows that have one, plus one of each: {listed(shares)}")
        probabilities = with_shares(scores, torch.tensor([float(counts[label] + 1) for label in labels]))
    if not all(e.domain for e in examples):
        notice("some rows have no domain, which `metakd run` needs")
    rows = [_row(e, labels, p) for e, p in zip(examples, probabilities.tolist(), strict=True)]
    write_text(output, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    right = sum(e.label == labels[i] for e, i in zip(examples, probabilities.argmax(-1).tolist(), strict=True))
    known = f", of which {counts.total():,} have a label: {right / counts.total():.1%} right" if counts else ""
    return f"{len(examples):,} texts{known}"


def _shortened(scorer: Scorer, e: Example) -> Example:
    pair = None if e.text_pair is None else scorer.shortened(e.text_pair)
    return replace(e, text=scorer.shortened(e.text), text_pair=pair)


def _ask(scorer: Scorer, prompts: Sequence[str], task: Task, answers: Answers) -> None:
    """Ask for the prompts that have not been answered."""
    words, missing = [*task.words.values()], [p for p in dict.fromkeys(prompts) if p not in answers]
    if len(missing) < len({*prompts}):
        notice(f"{answers.path} has answers for {len({*prompts}) - len(missing):,} texts; they are not asked again")
    if missing:
        with progress_bar("ask the language model", len(missing)) as progress:
            try:
                with graceful_shutdown():  # so that what is under way is kept
                    for rows, scores in scorer.scores(missing, words):
                        answers.add({missing[row]: values for row, values in zip(rows, scores, strict=True)})
                        progress(advance=len(rows))
            except AllRefusedError as error:
                if len(missing) == len({*prompts}):
                    raise
                notice(str(error))


def _row(e: Example, labels: Sequence[str], probabilities: Sequence[float]) -> dict[str, Any]:
    fields = {"id": e.id, "text": e.text, "text_pair": e.text_pair, "label": e.label, "domain": e.domain}
    rounded = {label: round(p, DIGITS) for label, p in zip(labels, probabilities, strict=True)}
    return {name: value for name, value in fields.items() if value} | {"probabilities": rounded}
