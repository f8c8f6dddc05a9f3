"""A run in two sentences, how far they hold, and the facts behind them."""

import re
import shlex
from collections.abc import Mapping
from typing import Any

from metakd.evaluation.statistics import LEVEL, points
from metakd.evaluation.tables import percent
from metakd.methods import BASELINE
from metakd.models.hub import public_name
from metakd.report.facts import Findings

BASELINES = {BASELINE: "the same small model fine-tuned on labels alone", "tfidf": "TF-IDF with logistic regression"}
ALIKE = 1.05  # ratios nearer to 1 are none


def sentences(findings: Findings) -> list[str]:
    """What was compressed, how much smaller and faster, at what cost; how it compares with the best baseline."""
    teacher, student = (findings.results["average"][name] for name in ("meta_teacher", "student"))
    count, split = len(findings.domains), findings.results["split"]
    smaller = _times(teacher["bytes"] / student["bytes"], "smaller", "larger", "as large")
    faster = _times(teacher["latency_ms"]["median"] / student["latency_ms"]["median"], "faster", "slower", "as fast")
    domains, scored = (f"{count} domains", f"{split} on average") if count > 1 else ("one domain", split)
    students = f"{count} small models, one for each" if count > 1 else "one small model"
    first = (
        f"{base_name(findings)}, fine-tuned into one teacher of {domains} ({_size(teacher)}), became {students} "
        f"({_size(student)}): {smaller} and {faster} for one text at a time, and right on "
        f"{percent(student['accuracy'])} percent of {scored} where the teacher is right on "
        f"{percent(teacher['accuracy'])} ({_difference_from_teacher(findings)})."
    )
    return [first, _against_baselines(findings)]


def _times(ratio: float, more: str, less: str, same: str) -> str:
    if 1 / ALIKE < ratio < ALIKE:
        return same
    return f"{ratio:.1f} times {more}" if ratio > 1 else f"{1 / ratio:.1f} times {less}"


def _difference_from_teacher(findings: Findings) -> str:
    if not (gain := findings.against.get("meta_teacher")):
        return "too few examples to compare"
    return f"{points_label(gain)}; {'' if gain['significant'] else 'not '}statistically significant"


def _against_baselines(findings: Findings) -> str:
    trained = [name for name in BASELINES if name in findings.models]
    if not trained or not findings.against:
        return "How the students compare with a baseline is not known: none was trained, or too little scored."
    average = findings.results["average"]
    best = max(trained, key=lambda name: average[name]["accuracy"])
    gain, baseline = findings.against[best], f"{BASELINES[best]} ({percent(average[best]['accuracy'])} percent)"
    figures = f"{points_label(gain)}, {_p_value(gain['p_holm'])}"
    if not gain["significant"]:
        return f"Their difference from the best baseline, {baseline}, is not statistically significant: {figures}."
    if gain["mean"] < 0:
        return f"They are worse than the best baseline, {baseline}, so use that instead: {figures}."
    return f"Their gain over the best baseline, {baseline}, is statistically significant: {figures}."


def cautions(findings: Findings) -> list[str]:
    """What should be known before the sentences are passed on."""
    results, notes = findings.results, []
    if others := len(findings.against):
        notes.append(
            f"Significant means p below {1 - LEVEL:.2f}, paired over the {len(findings.rows):,} scored examples and "
            f"adjusted for {others} comparison{'s' if others > 1 else ''} (Holm). It holds for other examples of these "
            f"domains and seed {findings.run['settings']['seed']} alone; `metakd experiment` compares several seeds."
        )
    if results["split"] == "dev":
        notes.append("There is no test split, so all scores are on dev: choose nothing by them that you then report.")
    if (without := results["average"]["student"].get("accuracy_without_leaks")) is not None:
        notes.append(
            f"{results['leaked_rows']:,} scored examples stand in train as well; without them students are right on "
            f"{percent(without)} percent."
        )
    return notes


def points_label(gain: Mapping[str, Any]) -> str:
    """A difference in percentage points of accuracy, with its interval."""
    mean, interval = points(gain).replace("-", "−").split(", ")
    return f"{mean} percentage points, 95 % interval {interval}"


def _p_value(p: float) -> str:
    return f"p\u00a0=\u00a0{p:.3f}" if p >= 0.001 else "p\u00a0<\u00a00.001"  # kept on one line


def _size(average: Mapping[str, Any]) -> str:
    count = average["parameters"]
    parameters = f"{count / 1e6:.1f} million" if count >= 1e5 else f"{count:,}"
    return f"{parameters} parameters, {average['bytes'] / 1e6:.1f} MB"


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


def facts(findings: Findings) -> dict[str, str]:
    """Base, student, data, dates, seeds, versions, machine, and the command that repeats it."""
    run, results, teacher = findings.run, findings.results, findings.manifest("meta_teacher")
    settings, environment = run["settings"], results["environment"]
    counts = [
        f"{split} {sum(sum(labels.values()) for labels in domains.values()):,}"
        for split, domains in findings.corpus["rows"].items()
    ]
    versions = [f"{name} {version}" for name, version in environment["versions"].items()]
    minutes = sum(results["seconds"].values()) / 60
    return {
        "Base": public_name(settings["base"]),
        "Student": f"{settings['student']}, taught by {settings['method']}",
        "Data": f"{public_name(run['data'] or 'tables in memory')}: {', '.join(counts)}",
        "Licences": ", ".join(f"{of}: {licence or 'not stated'}" for of, licence in run["licences"].items()),
        "Domains": ", ".join(findings.domains),
        "Labels": ", ".join(findings.labels),
        "Scored on": results["split"],
        "Made": f"{teacher.get('started', 'unknown')[:10]}, in {minutes:.1f} minutes of work",
        "Seed": str(settings["seed"]),
        "Precision": settings["precision"],
        "Machine": f"{environment['processor']}, {environment['cores']} cores, {environment['system']}",
        "Versions": ", ".join([f"Python {environment['python']}", *versions]),
        "Command": _public_command(teacher.get("environment", environment)["command"]),
    }
