"""A model card for each exported model, in the hub's format, and the way to the hub for those who ask for it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from metakd.utils.artifacts import write_text
from metakd.utils.environment import environment
from metakd.utils.errors import InputError, first_line

CARD_FILE = "README.md"


@dataclass(frozen=True)
class Card:
    """What a card says of one domain's model."""

    domain: str
    labels: Sequence[str]
    base: str
    method: str
    form: str  # of what is shipped, in words
    data: str
    split: str  # that the scores are on
    examples: int
    accuracy: float
    megabytes: float
    milliseconds: float  # median of one text at a time
    licences: Mapping[str, str | None]
    notes: Sequence[str] = ()  # limits that were measured

    def write(self, folder: Path) -> None:
        """README.md in `folder`, with a model-index that the hub reads."""
        from huggingface_hub import EvalResult, ModelCardData

        score = EvalResult(
            task_type="text-classification",
            dataset_type=self.data,
            dataset_name=f"{self.data}, {self.domain}",
            dataset_split=self.split,
            metric_type="accuracy",
            metric_value=round(self.accuracy, 4),
        )
        head = ModelCardData(
            model_name=f"{self.domain} ({self.form})",
            license=self.licences.get("base") or "unknown",
            base_model=self.base,
            library_name="onnxruntime",
            pipeline_tag="text-classification",
            tags=["metakd", "knowledge-distillation", "onnx"],
            eval_results=[score],
        )
        write_text(folder / CARD_FILE, f"---\n{head.to_yaml()}\n---\n\n{self._text()}")

    def _text(self) -> str:
        known = environment()
        notes = "".join(f"- {note}\n" for note in self.notes)
        return f"""# Text classifier of the domain “{self.domain}”

A small model that says which of {", ".join(f"`{label}`" for label in self.labels)} a text is, distilled by
[Meta-KD](https://aclanthology.org/2021.acl-long.236) (method `{self.method}`) from a teacher that was fine-tuned on
several domains, and exported as ONNX ({self.form}).

```python
from metakd import Classifier

print(Classifier.load("folder of this model").predict(["a text"]))
```

It needs `pip install metakd`, and no torch. Elsewhere: `tokenizer.json` is read by the package `tokenizers`,
`model.onnx` by ONNX Runtime, and `model.json` has the labels, the longest input in tokens and the padding token's id.

## Scores

| split | examples | accuracy | MB | ms a text (median) |
| --- | ---: | ---: | ---: | ---: |
| {self.split} | {self.examples} | {100 * self.accuracy:.1f} | {self.megabytes:.1f} | {self.milliseconds:.2f} |

Timed one text at a time, tokenising included, on {known["processor"]}, {known["cores"]} cores.

## Data

{self.data}, of which this model's own domain is “{self.domain}”. Licence: {self.licences.get("data") or "not stated"}.

## Intended use and limits

- For texts of this domain, in the language and of the kind that it was trained on; for others its scores say nothing.
- Of a longer text it reads the beginning alone, as many tokens as `model.json` says.
- It repeats what is wrong or unfair in the labels that it learnt from. Do not decide about people by it alone.
{notes}
## Licence

Of the base model `{self.base}`: {self.licences.get("base") or "not stated"}.
"""


def check_login() -> None:
    """InputError where the hub does not know who uploads, before the work for it is done."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    try:
        HfApi().whoami()
    except (HfHubHTTPError, OSError, ValueError) as error:
        raise InputError(f"--push-to-hub: not logged in ({first_line(error)}); log in by `hf auth login`") from None


def push(folders: Mapping[str, Path], prefix: str) -> list[str]:
    """Upload each domain's folder as PREFIX-DOMAIN, private until someone opens it; the addresses.

    Raises InputError where that fails.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    api, found = HfApi(), list[str]()
    for (domain, folder), name in zip(folders.items(), _hub_names(folders), strict=True):
        try:
            place = api.create_repo(f"{prefix}-{name}", private=True, exist_ok=True)
            api.upload_folder(repo_id=place.repo_id, folder_path=folder, commit_message="Exported by metakd")
        except (HfHubHTTPError, OSError, ValueError) as error:
            there = f"; uploaded before: {', '.join(found)}" if found else ""
            raise InputError(
                f"--push-to-hub {prefix}: {domain} was not uploaded ({first_line(error)}); name a place of yours such "
                f"as me/reviews. What was exported is whole: `hf upload` brings it there too{there}"
            ) from None
        found.append(str(place))
    return found


def _hub_names(domains: Iterable[str]) -> list[str]:
    """Each domain as part of a repository's name: letters, digits, '-', '_' and '.', at most 40, no two alike."""
    found: list[str] = []
    for domain in domains:
        kept = "".join(c if c.isascii() and (c.isalnum() or c in "-_.") else "-" for c in domain)
        name = kept.strip("-.")[:40] or "domain"
        found.append(name if name not in found else f"{name}-{len(found) + 1}")
    return found
