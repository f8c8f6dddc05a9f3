"""Defaults that depend on how much text there is."""

from metakd.config.settings import Settings
from metakd.data.dataset import MultiDomainDataset
from metakd.utils.console import notice
from metakd.utils.errors import flag


def fitted(settings: Settings, data: MultiDomainDataset) -> Settings:
    """The settings for as many training texts as there are, with a notice of what few of them change."""
    sized = settings.sized_for(len(data.train), len(data.labels))
    changed = [f"{flag(name)} {value:g}" for name, value in sized if value != getattr(settings, name)]
    if changed:
        notice(f"{len(data.train):,} training texts are few, so defaults change: {', '.join(changed)}")
    return sized
