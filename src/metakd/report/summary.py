"""A run in two sentences, how far they may be trusted, and the facts behind them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from typing import Any

from metakd.evaluation.statistics import LEVEL, points
from metakd.methods import BASELINE
from metakd.models.hub import public_name
from metakd.report.facts import Findings

BASELINES = {BASELINE: "the same small model fine-tuned on labels alone", "tfidf": "TF-IDF with logistic regression"}
ALIKE = 1.05  # ratios nearer to 1 are none


def sentences(findings: Findings) -> list[str]:
    """What was compressed, how much smaller and faster, at what cost; whether the gain over the best rival holds."""
    teacher, student = (findings.results["average"][name] for name in ("meta_teacher", "student"))
    count, split = len(findings.domains), findings.results["split"]
    smaller = _times(teacher["bytes"] / student["bytes"], "smaller", "larger", "as large")
    faster = _times(teacher["latency_ms"]["median"] / student["latency_ms"]["median"], "faster", "slower", "as fast")
    domains, where = (f"{count} domains", f"{split} on average") if count > 1 else ("one domain", split)
    fleet = f"{count} small models, one for each" if count > 1 else "one small model"
    first = (
        f"{base_name(findings)}, fine-tuned into one teacher of {domains} "
        f"({_size(teacher)}), became {fleet} ({_size(student)}): {smaller} and {faster} for one text at a time, and "
        f"right on {_percent(student)} percent of {where} where the teacher is right on {_percent(teacher)} "
        f"({_costs(findings)})."
    )
    return [first, _against_baselines(findings)]


def _times(ratio: float, more: str, less: str, same: str) -> str:
    if 1 / ALIKE < ratio < ALIKE:
        return same
    return f"{ratio:.1f} times {more}" if ratio > 1 else f"{1 / ratio:.1f} times {less}"


def _costs(findings: Findings) -> str:
    if not (found := findings.against.get("meta_teacher")):
        return "too few examples to compare"
    what = "loss" if found["mean"] < 0 else "gain" if found["mean"] > 0 else "difference"
    return f"{points_label(found)}; a {what} is {'' if found['established'] else 'not '}established"


def _against_baselines(findings: Findings) -> str:
    known = [name for name in BASELINES if name in findings.models]
    if not known or not findings.against:
        return "What the teacher is worth beside a simple rival is not known: none was trained, or too little scored."
    best = max(known, key=lambda name: findings.results["average"][name]["accuracy"])
    found, told = findings.against[best], f"{BASELINES[best]} ({_percent(findings.results['average'][best])} percent)"
    figures = f"{points_label(found)}, {_chance(found['p_holm'])}"
    if not found["established"]:
        return f"A difference from the best simple rival, {told}, is not established: {figures}."
    if found["mean"] < 0:
        return f"They are worse than the best simple rival, {told}, so use that instead: {figures}."
    return f"Their gain over the best simple rival, {told}, is established: {figures}."


def cautions(findings: Findings) -> list[str]:
    """What should be known before the sentences are passed on."""
    results, found = findings.results, []
    if findings.against:
        scored, others = len(findings.rows), len(findings.against)
        found.append(
            f"Established means p below {1 - LEVEL:.2f}, paired over the {scored:,} scored examples and raised for "
            f"{others} comparison{'s' if others > 1 else ''} (Holm). It speaks of other examples of these domains for "
            f"seed {findings.run['settings']['seed']} alone; of other seeds, `metakd experiment` does."
        )
    if results["split"] == "dev":
        found.append("There is no test split, so all scores are on dev: choose nothing by them that you then report.")
    if (without := results["average"]["student"].get("accuracy_without_leaks")) is not None:
        found.append(
            f"{results['leaked_rows']:,} scored examples stand in train as well; without them students are right on "
            f"{100 * without:.1f} percent."
        )
    return found


def points_label(found: Mapping[str, Any]) -> str:
    """A difference in points of accuracy, with its interval."""
    mean, interval = points(found).replace("-", "−").split(", ")
    return f"{mean} points, 95 % interval {interval}"


def _chance(p: float) -> str:
    return f"p\u00a0=\u00a0{p:.3f}" if p >= 0.001 else "p\u00a0<\u00a00.001"  # not to be parted at a line's end


def _size(average: Mapping[str, Any]) -> str:
    count = average["parameters"]
    told = f"{count / 1e6:.1f} million" if count >= 1e5 else f"{count:,}"
    return f"{told} parameters, {average['bytes'] / 1e6:.1f} MB"


def _percent(average: Mapping[str, Any]) -> str:
    return f"{100 * average['accuracy']:.1f}"


def _public_command(command: str) -> str:
    """Without the folders that lead to what it names."""
    try:
        parts = shlex.split(command)
    except ValueError:  # quotes that do not end
        parts = command.split()
    return shlex.join(re.sub(r"^(--[\w-]+=)?[/~].*/", r"\1", part) for part in parts)


def base_name(findings: Findings) -> str:
    """Without the folder or the owner that it came from."""
    return str(findings.run["settings"]["base"]).rstrip("/").rsplit("/", 1)[-1]


def facts(findings: Findings) -> list[tuple[str, str]]:
    """Base, student, data, dates, seeds, versions, machine, and the command that repeats it."""
    settings, environment = findings.run["settings"], findings.results["environment"]
    rows = {
        split: sum(sum(labels.values()) for labels in own.values()) for split, own in findings.corpus["rows"].items()
    }
    minutes = sum(findings.results["seconds"].values()) / 60
    versions = ", ".join(f"{name} {version}" for name, version in environment["versions"].items())
    found = {
        "Base": public_name(settings["base"]),
        "Student": f"{settings['student']}, taught by {settings['method']}",
        "Data": f"{public_name(findings.run['data'] or 'tables in memory')}: "
        + ", ".join(f"{split} {count:,}" for split, count in rows.items()),
        "Licences": ", ".join(f"{what}: {told or 'not stated'}" for what, told in findings.run["licences"].items()),
        "Domains": ", ".join(findings.domains),
        "Labels": ", ".join(findings.labels),
        "Scored on": findings.results["split"],
        "Made": f"{findings.manifest('meta_teacher').get('started', 'unknown')[:10]}, in {minutes:.1f} minutes of work",
        "Seed": str(settings["seed"]),
        "Precision": settings["precision"],
        "Machine": f"{environment['processor']}, {environment['cores']} cores, {environment['system']}",
        "Versions": f"Python {environment['python']}, {versions}",
        "Command": _public_command(findings.manifest("meta_teacher").get("environment", environment)["command"]),
    }
    return [*found.items()]
