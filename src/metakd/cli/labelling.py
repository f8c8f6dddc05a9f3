"""The command that asks a large language model, or classifiers, for labels."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from metakd.cli.assembly import check_writable, load_library
from metakd.cli.options import Columns, Encoding, Replace, reading
from metakd.utils.console import stdout
from metakd.utils.errors import InputError, flag, listed

if TYPE_CHECKING:
    from metakd.data.schema import Example
    from metakd.labelling.label import Scorer
    from metakd.labelling.prompts import Task

app = typer.Typer()

LONGEST_TEXT = 512  # tokens that a language model reads of a text, unless --max-length says otherwise

Models = Annotated[
    list[str],
    typer.Option(
        help="Causal language model or fine-tuned classifier: a folder or a model id; with --endpoint, its name. "
        "DOMAIN=MODEL, repeated, names a classifier for each domain's texts."
    ),
]
Words = Annotated[Path | None, typer.Option(help="YAML file with the words for each label, as in 'pos: good'.")]
Prompt = Annotated[Path | None, typer.Option(help="File with the prompt; {text} is where the text goes.")]
Chat = Annotated[bool, typer.Option("--chat", help="Send the prompt as a message, by the model's template.")]
Prior = Annotated[
    bool | None,
    typer.Option(
        "--correct-prior/--no-correct-prior",
        metavar="",
        help="Make labels as frequent as in rows that have one, or equally frequent (default: of language models).",
    ),
]
Length = Annotated[int | None, typer.Option(help="Tokens of a text that a language model reads (default: 512).", min=4)]
Url = Annotated[str | None, typer.Option(help="Address of an OpenAI-compatible API; its key is in OPENAI_API_KEY.")]
Votes = Annotated[
    int | None, typer.Option(help="Answers to count for a text, if --endpoint returns no logprobs.", min=1)
]
Calls = Annotated[int | None, typer.Option(help="The most calls of --endpoint.", min=1)]
Pace = Annotated[int | None, typer.Option(help="The most calls of --endpoint in a minute.", min=1)]
Parallel = Annotated[int | None, typer.Option(help="Calls of --endpoint at a time (default: 8).", min=1, max=256)]


@app.command()
def label(
    data: Annotated[Path, typer.Option(help="File with text; optional text_pair, label, domain and id.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="JSONL file to write: the rows with probabilities.")],
    model: Models,
    labels: Annotated[str, typer.Option(help="Labels, like 'bad,good' (default: those of the rows).")] = "",
    prompt: Prompt = None,
    label_words: Words = None,
    chat: Chat = False,
    max_length: Length = None,
    correct_prior: Prior = None,
    endpoint: Url = None,
    votes: Votes = None,
    max_calls: Calls = None,
    calls_per_minute: Pace = None,
    parallel: Parallel = None,
    columns: Columns = "",
    encoding: Encoding = "utf-8",
    overwrite: Replace = False,
) -> None:
    """Ask a language model or classifiers for the labels of texts, for `run --soft-labels`; nothing is trained."""
    check_writable(output, ".jsonl", overwrite)
    if data.exists() and output.exists() and output.samefile(data):
        raise InputError(f"--output {output}: is the data, which would be overwritten")
    asked = {"votes": votes, "max_calls": max_calls, "calls_per_minute": calls_per_minute, "parallel": parallel}
    limits = {name: value for name, value in asked.items() if value}
    if limits and endpoint is None:
        raise InputError(f"{listed([*map(flag, limits)])}: only with --endpoint; add that, or leave this out")
    from metakd.labelling.texts import read_texts

    how, names = reading(columns, encoding), [*map(str.strip, labels.split(","))] if labels else []
    examples = read_texts(data, **how)
    asking = {"prompt": prompt, "label_words": label_words, "chat": chat, "max_length": max_length}
    idle = [flag(name) for name, value in asking.items() if value]
    by_domain, task = all("=" in name for name in model) and len(model) > 1, None
    if endpoint is not None or (idle and not by_domain):  # checked before a model is fetched
        task = _task(model, examples, names, prompt, label_words, chat or endpoint is not None)
    if models := {} if endpoint is not None else _classifiers(model, {e.domain for e in examples}):
        if idle:
            raise InputError(f"{', '.join(idle)}: for language models, but --model is a classifier; leave it out")
        written = _by_classifiers(models, examples, names, output, bool(correct_prior))
    else:
        task = task or _task(model, examples, names, prompt, label_words, chat)
        scorer = _scorer(model[0], max_length or LONGEST_TEXT, chat, endpoint, limits)
        written = _by_language_model(scorer, examples, task, output, correct_prior is not False, overwrite)
    stdout.print(f"{written}: {output}", highlight=False)


def _classifiers(models: Sequence[str], domains: Collection[str]) -> dict[str, str]:
    """The classifiers by domain; none if --model is a language model."""
    load_library()
    from metakd.labelling.classifiers import ALL, is_classifier, named_models

    by_domain = named_models(models, domains)
    return by_domain if ALL not in by_domain or is_classifier(by_domain[ALL]) else {}


def _by_classifiers(
    models: Mapping[str, str], examples: Sequence[Example], labels: Sequence[str], output: Path, correct_prior: bool
) -> str:
    import torch

    from metakd.labelling.classifiers import Classifiers
    from metakd.labelling.label import write_labels
    from metakd.labelling.texts import labels_of

    classifiers = Classifiers(models)
    names = labels_of(examples, labels, classifiers.labels)
    scores = torch.from_numpy(classifiers.scores(examples, names))
    return write_labels(examples, scores, names, output, correct_prior)


def _task(
    models: Sequence[str],
    examples: Sequence[Example],
    labels: Sequence[str],
    prompt: Path | None,
    words: Path | None,
    chat: bool,
) -> Task:
    if len(models) > 1:
        raise InputError("--model: several language models; choose one")
    from metakd.labelling.prompts import read_task
    from metakd.labelling.texts import labels_of

    return read_task(labels_of(examples, labels), prompt, words, examples, chat)


def _by_language_model(
    scorer: Scorer, examples: Sequence[Example], task: Task, output: Path, correct_prior: bool, overwrite: bool
) -> str:
    import torch

    from metakd.labelling.answers import Answers
    from metakd.labelling.label import ask_all, write_labels
    from metakd.utils.locks import waiting_lock

    kept = output.with_suffix(".answers")
    with waiting_lock(kept.with_name(f".{kept.name}.lock"), "asks for these labels"):
        check_writable(output, ".jsonl", overwrite)  # another command may have written it meanwhile
        answered, scores = ask_all(scorer, examples, task, Answers(kept, scorer.identity, task.words))
        log_p = torch.tensor(scores, dtype=torch.float64)
        return write_labels(answered, log_p, [*task.words], output, correct_prior)


def _scorer(
    model: str,
    max_length: int,
    chat: bool,
    url: str | None,
    limits: Mapping[str, int],
) -> Scorer:
    """The language model: behind an API if there is a `url`, else on this machine."""
    load_library()
    from metakd.labelling.endpoint import Endpoint
    from metakd.labelling.local_model import LocalModel

    if url is None:
        return LocalModel(model, max_length, chat)
    return Endpoint(url, model, max_length, **limits)
