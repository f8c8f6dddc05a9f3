"""What data demands of settings: defaults for few texts and many labels; what several labels a text rule out."""

from collections.abc import Iterator

from metakd.config.settings import Settings
from metakd.data.dataset import MultiDomainDataset
from metakd.methods import METHODS
from metakd.utils.console import notice
from metakd.utils.errors import flag, raise_faults


def fitted(settings: Settings, data: MultiDomainDataset) -> Settings:
    """The settings for as many training texts and labels as there are, with a notice of what these change.

    Raises InputError for settings that do not go with several labels.
    """
    raise_faults("a text may have several labels", [*unfit(settings, data)])
    sized = settings.sized_for(len(data.train), len(data.labels), data.several_labels)
    changed = [f"{flag(name)} {value:g}" for name, value in sized if value != getattr(settings, name)]
    if changed:
        sizes = f"{len(data.train):,} training texts with {len(data.labels):,} labels"
        notice(f"{sizes}: in place of the defaults, the run takes {', '.join(changed)}")
    return sized


def unfit(settings: Settings, data: MultiDomainDataset) -> Iterator[str]:
    """A fault for each setting that does not go with several labels, if a text of the data may have them."""
    if not data.several_labels:
        return
    leave = "made for texts with one label; leave it out"
    if settings.heads == "domain":
        yield f"--heads domain: {leave}"
    if settings.soft_labels:
        yield f"--soft-labels: {leave}"
    if settings.class_weights != "none":
        yield f"--class-weights: {leave}"
    if settings.max_share < 1:
        yield f"--max-share: {leave}"
    if settings.long_texts == "adaptive":
        yield "--long-texts adaptive: made for texts with one label; use --long-texts mean"
    if settings.method in METHODS and METHODS[settings.method].needs & {"foreign_text", "soft_labels"}:
        yield f"--method {settings.method}: made for texts with one label; use --method meta_kd"
