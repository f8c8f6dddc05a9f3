"""A run in two sentences, and the facts behind them."""

from __future__ import annotations

from typing import Any

from metakd.checkpoints import public_name
from metakd.comparison import points
from metakd.report.facts import KINDS, Findings

RIVALS = ("fine_tuned", "tfidf")


def sentences(findings: Findings) -> list[str]:
    """What was compressed, how much smaller and faster, at what cost; whether the gain over the best rival holds."""
    teacher, student = (findings.results["average"][name] for name in ("meta_teacher", "student"))
    smaller = teacher["bytes"] / student["bytes"]
    faster = teacher["latency_ms"]["median"] / student["latency_ms"]["median"]
    lost = "too few to compare"
    if cost := findings.against.get("meta_teacher"):
        lost = f"{points(cost)} points{'' if cost['established'] else ', not established'}"
    first = (
        f"One meta-teacher of {_millions(teacher)} became small models of {_millions(student)}, one for each of "
        f"{len(findings.domains)} domains: {smaller:.1f} times smaller and {faster:.1f} times faster for one text at a "
        f"time, at {_percent(student)} percent right on average where the teacher has {_percent(teacher)} ({lost})."
    )
    return [first, _against_rivals(findings)]


def _against_rivals(findings: Findings) -> str:
    known = [name for name in RIVALS if name in findings.models]
    if not known or not findings.against:
        return "What the teacher is worth beside a simple rival is not known: none was trained, or too little scored."
    best = max(known, key=lambda name: findings.results["average"][name]["accuracy"])
    gain = findings.against[best]
    told = f"{KINDS[best]} ({_percent(findings.results['average'][best])} percent; {points(gain)} points)"
    if not gain["established"]:
        return f"That they beat the best simple rival, the {told}, is not established."
    if gain["mean"] < 0:
        return f"They are worse than the best simple rival, the {told}: use that instead."
    return f"They beat the best simple rival, the {told}, and that is established."


def _millions(average: dict[str, Any]) -> str:
    return f"{average['parameters'] / 1e6:.1f} million parameters ({average['bytes'] / 1e6:.1f} MB)"


def _percent(average: dict[str, Any]) -> str:
    return f"{100 * average['accuracy']:.1f}"


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
        "Versions": f"Python {environment['python']}, {versions}",
        "Machine": f"{environment['processor']}, {environment['cores']} cores, {environment['system']}",
        "Command": findings.manifest("meta_teacher").get("environment", environment)["command"],
    }
    return [*found.items()]
