"""The command that asks a large language model for labels."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from metakd.cli.assembly import check_writable, load_library
from metakd.cli.options import Columns, Encoding, Replace, reading
from metakd.utils.console import stdout
from metakd.utils.errors import InputError

if TYPE_CHECKING:
    from metakd.labelling.label import Scorer

app = typer.Typer()

Model = Annotated[str, typer.Option(help="Causal language model: a folder or a model id; with --endpoint, its name.")]
Words = Annotated[Path | None, typer.Option(help="YAML file with the words for each label, as in 'pos: good'.")]
Prompt = Annotated[Path | None, typer.Option(help="File with the prompt; {text} is where the text goes.")]
Chat = Annotated[bool, typer.Option("--chat", help="Send the prompt as a message, by the model's template.")]
Prior = Annotated[bool, typer.Option(help="Make labels as frequent as in rows that have one, or equally frequent.")]
Url = Annotated[str | None, typer.Option(help="Address of an OpenAI-compatible API; its key is in OPENAI_API_KEY.")]
Votes = Annotated[int | None, typer.Option(help="Answers for a text, if --endpoint tells no probabilities.", min=1)]
Calls = Annotated[int | None, typer.Option(help="The most calls of --endpoint.", min=1)]
Pace = Annotated[int | None, typer.Option(help="The most calls of --endpoint in a minute.", min=1)]


@app.command()
def label(
    data: Annotated[Path, typer.Option(help="File with text; optional text_pair, label, domain and id.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="JSONL file to write: the rows with probabilities.")],
    model: Model,
    labels: Annotated[str, typer.Option(help="Labels, like 'bad,good' (default: those of the rows).")] = "",
    prompt: Prompt = None,
    label_words: Words = None,
    chat: Chat = False,
    max_length: Annotated[int, typer.Option(help="Tokens of a text that are read.", min=4)] = 512,
    correct_prior: Prior = True,
    endpoint: Url = None,
    votes: Votes = None,
    max_calls: Calls = None,
    calls_per_minute: Pace = None,
    columns: Columns = "",
    encoding: Encoding = "utf-8",
    overwrite: Replace = False,
) -> None:
    """Ask a language model for the labels of texts: probabilities for `run --soft-labels`; nothing is trained."""
    check_writable(output, ".jsonl", overwrite)
    if data.exists() and output.exists() and output.samefile(data):
        raise InputError(f"--output {output}: is the data, which would be overwritten")
    if endpoint is None and (votes or max_calls or calls_per_minute):
        raise InputError("--votes, --max-calls and --calls-per-minute go with --endpoint; add it, or leave them out")
    how = reading(columns, encoding)
    from metakd.labelling.prompts import read_task
    from metakd.labelling.texts import labels_of, read_texts

    examples = read_texts(data, **how)
    names = labels_of(examples, [name.strip() for name in labels.split(",")] if labels else [])
    task = read_task(names, prompt, label_words, examples, chat or endpoint is not None)
    load_library()
    from metakd.labelling.answers import Answers
    from metakd.labelling.label import label_texts

    limits = (votes or 1, max_calls, calls_per_minute)
    scorer = _remote(endpoint, model, max_length, *limits) if endpoint is not None else _local(model, max_length, chat)
    answers = Answers(output.with_suffix(".answers"), scorer.identity, task.words)
    stdout.print(f"{label_texts(scorer, examples, task, answers, output, correct_prior)}: {output}", highlight=False)


def _local(model: str, max_length: int, chat: bool) -> Scorer:
    from metakd.labelling.local_model import LocalModel

    return LocalModel(model, max_length, chat)


def _remote(
    url: str, model: str, max_length: int, votes: int, max_calls: int | None, calls_per_minute: int | None
) -> Scorer:
    from metakd.labelling.endpoint import Endpoint

    return Endpoint(url, model, max_length, votes, max_calls, calls_per_minute)
