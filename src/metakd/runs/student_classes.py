"""Which classes a domain's student has: all labels, or those of its domain."""

from metakd.config.settings import Settings
from metakd.data.dataset import MultiDomainDataset
from metakd.data.schema import LEAST_CLASSES


def student_classes(settings: Settings, data: MultiDomainDataset, domain: str | None) -> list[str]:
    """The classes of the student of `domain`, in the order of the data's labels: M_k of M.

    All of them for the shared start (None), for a domain that is not in the data, and for a domain whose training text
    has fewer than LEAST_CLASSES.
    """
    labels = data.labels_by_domain.get(domain, []) if domain is not None else []
    return data.labels if settings.labels == "shared" or len(labels) < LEAST_CLASSES else labels


def classes_by_domain(settings: Settings, data: MultiDomainDataset) -> dict[str, list[str]]:
    """The classes of each domain's student; empty where all have all labels."""
    classes = {domain: student_classes(settings, data, domain) for domain in data.domains}
    return classes if any(each != data.labels for each in classes.values()) else {}
