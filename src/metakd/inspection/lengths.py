"""How long the texts of each domain are, and which of them are longer than models read at once."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from metakd.config.settings import Settings
from metakd.data.schema import Example
from metakd.utils.errors import listed

CHUNK = 256  # texts tokenised at a time: long ones take much memory
LONG = 0.02  # share of a domain's texts that are longer than models read at once, from which it is worth a remark


def lengths(sample: Sequence[Example], tokenizer: Tokenizer | None, limit: int) -> dict[str, Any]:
    """Median, 95th percentile and maximum by domain, and the share that is longer than `limit` (truncated)."""
    if tokenizer is None:
        counts = [len(f"{e.text} {e.text_pair or ''}".split()) for e in sample]
    else:
        counts = [
            len(encoding.ids)
            for start in range(0, len(sample), CHUNK)
            for encoding in tokenizer.encode_batch_fast([e.inputs for e in sample[start : start + CHUNK]])
        ]
    by_domain: dict[str, list[int]] = defaultdict(list)
    for example, count in zip(sample, counts, strict=True):
        by_domain[example.domain].append(count)
    return {
        "unit": "words" if tokenizer is None else "tokens",
        "limit": limit,
        "sampled_rows": len(sample),
        "domains": {
            domain: {
                "median": int(np.median(values)),
                "p95": int(np.percentile(values, 95)),
                "longest": max(values),
                "over_limit": round(float(np.mean(np.array(values) > limit)), 4),
            }
            for domain, values in sorted(by_domain.items())
        },
    }


def long_texts(lengths: Mapping[str, Any]) -> list[str]:
    """What share of the texts is longer than models read at once, and what `metakd run` does about it."""
    shares = {domain: values["over_limit"] for domain, values in lengths["domains"].items()}
    if max(shares.values(), default=0) < LONG:
        return []
    windows, most = (Settings.model_fields[name].default for name in ("windows", "most_windows"))
    each = listed([f"{domain} {100 * share:.0f} %" for domain, share in sorted(shares.items(), key=lambda s: -s[1])])
    return [
        f"texts longer than {lengths['limit']} {lengths['unit']}: {each}; `metakd run` reads them in windows: students "
        f"learn from the first {1 + windows} (--windows), and up to {most} are read to predict (--long-texts)"
    ]
