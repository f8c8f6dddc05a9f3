"""Several models as one: each text goes to the model of its domain, as in a run's folder or a folder of exports."""

import json
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from metakd.data.schema import folder_name
from metakd.inference.classifier import Classifier
from metakd.inference.layout import EXPORT, FIT_FILE
from metakd.inference.long_texts import READING_FILE
from metakd.utils.artifacts import RUN_FILE, read_manifest, read_run, remedy
from metakd.utils.errors import InputError, as_input_error, collecting

LOADED = 32  # models in memory at a time


class ByDomain:
    """The classifier of each domain, loaded when the first text of its domain comes."""

    def __init__(self, folders: Mapping[str, str | Path], **reading: Any) -> None:
        """`folders` has each domain's model; `reading`: how they read long texts, as in Classifier.from_pretrained."""
        self.folders = dict(folders)
        self.several_labels = False  # whether a text may have several, known of the models that were loaded
        self._load = lru_cache(LOADED)(lambda domain: Classifier.from_pretrained(self.folders[domain], **reading))

    def classifier(self, domain: str) -> Classifier:
        """That of one of the domains; InputError if it cannot be loaded."""
        return self._load(domain)

    def labels(self, domains: Iterable[str]) -> list[str]:
        """The labels of the models of these domains, each once; InputError with what is wrong with any of them."""
        labels, problems = dict[str, None](), list[InputError]()
        for domain in domains:
            with collecting(problems):
                labels |= dict.fromkeys(self.classifier(domain).labels)
                self.several_labels |= self.classifier(domain).several_labels
        if problems:
            raise InputError("\n".join(map(str, problems)))
        return [*labels]


def models_by_domain(folder: Path) -> dict[str, Path] | None:
    """The model of each domain in the folder of a run, of exports or of `fit`; None for any other folder.

    Raises:
        InputError: Some domains have none.
    """
    if (folder / RUN_FILE).is_file():
        domains, parent, again = read_run(folder)["domains"], folder / "students", remedy(folder)
    elif (manifest := read_manifest(folder) or {}).get("step") == EXPORT:
        with as_input_error(f"{folder}: its manifest names no domains; export the run again"):
            domains, parent = [*manifest["run"]["domains"]], folder
        again = "export the run again, as files are missing"
    elif (folder / FIT_FILE).is_file():
        with as_input_error(f"{folder / FIT_FILE}: cannot be read; repeat your `metakd fit` command"):
            domains = [*json.loads((folder / FIT_FILE).read_text(encoding="utf-8"))["delivered"]]
        parent, again = folder, "repeat your `metakd fit` command, as files are missing"
    else:
        return None
    models = {domain: parent / folder_name(domain) for domain in domains}
    if missing := [domain for domain, model in models.items() if not model.is_dir()]:
        raise InputError(f"{folder}: no finished model for {', '.join(missing)}; {again}")
    if (folder / RUN_FILE).is_file() and not all((model / READING_FILE).is_file() for model in models.values()):
        raise InputError(f"{folder}: not scored, which decides what students answer; {remedy(folder, 'evaluate')}")
    if not models:
        raise InputError(f"{folder}: has no models")
    return models
