"""What a click opens: a model's confusions, calibration, mistakes and disagreements; what is known of a node."""

from collections.abc import Mapping, Sequence
from typing import Any

from metakd.evaluation.statistics import difference
from metakd.evaluation.tables import by_windows, milliseconds
from metakd.inference.thresholds import HALF
from metakd.report.facts import KINDS, MOST_LABELS, SHOWN, Findings, calibration_by_chance, calibration_error
from metakd.report.lineage import score
from metakd.report.summary import base_name, facts

FEW_TERMS = 10


def scores(findings: Findings, model: str, domain: str | None = None) -> dict[str, Any]:
    """A row of the table of models; the average over domains where none is named."""
    results = findings.results
    scored = results["average"][model] if domain is None else results["domains"][domain][model]
    low, high = scored["accuracy_interval"]
    return {
        "id": model if domain is None else f"{model}:{domain}",
        "kind": model,
        "model": KINDS[model],
        "domain": domain,
        "accuracy": 100 * scored["accuracy"],
        "low": 100 * low,
        "high": 100 * high,
        "difference": _difference(findings, model, findings.domains if domain is None else [domain]),
        "macro_f1": 100 * scored["macro_f1"],
        "megabytes": scored["bytes"] / 1e6,
        "latency": scored["latency_ms"],
        "milliseconds": milliseconds(scored["latency_ms"]),
        "examples": len(findings.rows) if domain is None else scored["examples"],
    }


def _difference(findings: Findings, model: str, domains: Sequence[str]) -> dict[str, float] | None:
    """Its accuracy less the meta-teacher's in points, paired by example; None where too few were scored."""
    rights = findings.rights[model]
    if model == "meta_teacher" or not set(domains) <= set(rights):
        return None
    gain = difference({domain: rights[domain] for domain in domains}, findings.rights["meta_teacher"])
    return {"mean": 100 * gain.mean, "low": 100 * gain.interval[0], "high": 100 * gain.interval[1]}


def models(findings: Findings) -> dict[str, dict[str, Any]]:
    """By id, for the script; examples are named by their ids [examples]."""
    return {f"{model}:{domain}": _model(findings, model, domain) for model, domain in findings.scored_models}


def _model(findings: Findings, model: str, domain: str) -> dict[str, Any]:
    scored = findings.results["domains"][domain][model]
    tenths = findings.calibration(model, domain)
    lists = {"mistakes": findings.mistakes(model, domain), "disagreements": findings.disagreements(model, domain)}
    times = scored["latency_ms"]
    latency = f"{milliseconds(times)} ms, 95 of 100 within {times['p95']:.1f} ms"
    facts = [("Accuracy", score(scored)), ("Size", _size(scored)), ("One text", latency)]
    if "micro_f1" in scored:
        facts.insert(1, ("Micro-F1", score(scored, "micro_f1")))
    if scored.get("windows", 1) > 1:
        means = f"; ms by the windows that a text fills: {by_windows(times['by_windows'])}" * ("by_windows" in times)
        facts.append(("Long texts", f"{scored['windows']:.2f} windows read on average{means}"))
    calibration = findings.results.get("calibration", {})
    thresholds = calibration.get("thresholds", {}).get(model, {}).get(domain, {}).values()
    if {*thresholds} - {HALF}:
        facts.append(
            ("A label is given", f"above a probability of {min(thresholds):.2f} to {max(thresholds):.2f}, by label")
        )
    temperature = calibration.get("temperatures", {}).get(domain)
    if temperature and model == "student":
        facts.append(("Calibrated", _calibrated(temperature, calibration["before"], calibration["after"])))
    if "trained_on" in scored:
        facts.append(("Trained on", f"{scored['trained_on']}, C = {scored['C']}"))
    return {
        "title": f"{KINDS[model]}, {domain}",
        "kind": model,
        "facts": facts,
        "labels": findings.labels_of(domain),
        "several": bool(findings.run.get("several_labels")),
        **_confusions(findings, model, domain),
        "calibration": tenths,
        "calibration_error": calibration_error(tenths),
        "calibration_by_chance": calibration_by_chance(tenths),
    } | {name: {"count": len(rows), "shown": [row["id"] for row in rows[:SHOWN]]} for name, rows in lists.items()}


def _confusions(findings: Findings, model: str, domain: str) -> dict[str, Any]:
    """The whole table where labels are few, or a text may have several; else the most frequent confusions."""
    if findings.run.get("several_labels") or len(findings.labels_of(domain)) <= MOST_LABELS:
        return {"confusion": findings.confusion(model, domain)}
    return {"confused": findings.confused(model, domain)}


def _calibrated(temperature: float, before: Mapping[str, float], after: Mapping[str, float]) -> str:
    """What a temperature has brought, on dev."""
    loss, error = (f"{after[of]:.3f}, was {before[of]:.3f}" for of in ("log_likelihood_loss", "calibration_error"))
    return (
        f"temperature {temperature:.2f}; on dev, of all domains, loss {loss}; calibration error without chance {error}"
    )


def _size(scored: Mapping[str, Any]) -> str:
    return f"{scored['parameters']:,} parameters, {scored['bytes'] / 1e6:.1f} MB"


def examples(findings: Findings, models: Mapping[str, Mapping[str, Any]], texts: bool) -> dict[str, dict[str, Any]]:
    """Those that the details of `models` name, by id, once each; without `texts` no word of them."""
    shown = set().union(*(model[name]["shown"] for model in models.values() for name in ("mistakes", "disagreements")))
    return {
        row["id"]: {"label": row["label"], "predictions": row["models"], "texts": row["texts"] if texts else []}
        for row in findings.rows
        if row["id"] in shown
    }


def nodes(findings: Findings, texts: bool) -> dict[str, dict[str, Any]]:
    """What is known of base, meta-teacher and domains, by the id of the node; a student's node opens its model."""
    named = facts(findings)
    base = [(name, named[name]) for name in ("Base", "Licences", "Data", "Seed", "Command")]
    return {
        "base": {"title": base_name(findings), "facts": base, "tables": [], "models": []},
        "meta_teacher": _teacher(findings),
        **{f"domain:{domain}": _domain(findings, domain, texts) for domain in findings.domains},
    }


def _teacher(findings: Findings) -> dict[str, Any]:
    settings, average = findings.run["settings"], findings.results["average"]["meta_teacher"]
    epochs = settings["teacher_epochs"]
    rate = findings.manifest("meta_teacher").get("learning_rate", settings["teacher_learning_rate"])
    known = [
        ("Accuracy, average", score(average)),
        ("Size", _size(average)),
        ("Trained", f"{epochs:g} epochs, learning rate {rate:g}" if epochs else "before this run; it teaches as it is"),
        ("Domain loss", f"{settings['domain_loss']}, γ₁ = {settings['gamma1']:g}"),
        ("Instance weights", settings["weights"]),
    ]
    if probe := findings.domain_probe:
        text = "from E(x) {pooled:.0%} of the time, from h {representation:.0%}, by chance {chance:.0%}".format(**probe)
        known.append(("Domain can be told", text))
    models = [f"meta_teacher:{domain}" for domain in findings.domains]
    return {"title": "meta-teacher", "facts": known, "tables": [], "models": models}


def _domain(findings: Findings, domain: str, texts: bool) -> dict[str, Any]:
    counts = {split: domains.get(domain, {}) for split, domains in findings.corpus["rows"].items()}
    names = [name for name in findings.labels if any(name in labels for labels in counts.values())]
    rows = [[split, *(labels.get(name, 0) for name in names)] for split, labels in counts.items()]
    tables = _table("Rows by label", ["split", *names], rows)
    tables += _neighbours(findings, domain) + _unseen(findings, domain)
    terms = ", ".join(term for term, _ in findings.corpus["terms"].get(domain, [])[:FEW_TERMS]) if texts else ""
    known = [("Key terms", terms)] if terms else []
    models = [f"{model}:{domain}" for model, other in findings.scored_models if other == domain]
    return {"title": f"domain {domain}", "facts": known, "tables": tables, "models": models}


def _table(title: str, head: Sequence[str], rows: Sequence[Any]) -> list[dict[str, Any]]:
    """A list of the table, or of none where it has no rows."""
    return [{"title": title, "head": head, "rows": rows}] if rows else []


def _neighbours(findings: Findings, domain: str) -> list[dict[str, Any]]:
    """How alike the others are, and what transfers to and from them."""
    transfer, similarity = findings.results.get("transfer", {}), findings.corpus["similarity"]
    others = [other for other in findings.domains if other != domain]
    columns = {"domain": others}
    if similarity:
        cosines = dict(zip(findings.domains, similarity[findings.domains.index(domain)], strict=False))
        columns["prototypes, cosine"] = [f"{cosines[other]:.2f}" for other in others]
    if transfer:
        columns[f"TF-IDF of its text on {domain}, %"] = [f"{100 * transfer[other][domain]:.1f}" for other in others]
        columns[f"TF-IDF of {domain}'s text on it, %"] = [f"{100 * transfer[domain][other]:.1f}" for other in others]
    return _table("Other domains", [*columns], [*zip(*columns.values(), strict=True)] if len(columns) > 1 else [])


def _unseen(findings: Findings, domain: str) -> list[dict[str, Any]]:
    """What `experiment unseen` has measured of it: students whose teacher has, and has not, seen the domain."""
    accuracies = {method: result["domains"].get(domain) for method, result in findings.students("unseen").items()}
    rows = [(method, f"{100 * share:.1f}") for method, share in accuracies.items() if share is not None]
    return _table("With and without a teacher that has seen it", ["method", "accuracy, %"], rows)
