"""Several teachers whose predictions are averaged."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import cast

import torch
from torch import nn

from metakd.data.tokenization import Batch
from metakd.models.meta_teacher import NO_LAYERS, UNKNOWN_DOMAIN, MetaTeacher, TeacherLayers, TeacherOutputs
from metakd.utils.errors import InputError


class TeacherEnsemble(MetaTeacher):
    """Several teachers, whose predictions are averaged [You et al., KDD 2017]; they have no layers in common.

    `encoder`, from which students may be cut, has the mean of their weights.
    """

    def __init__(self, members: Sequence[MetaTeacher], num_domains: int) -> None:
        encoder = members[0].encoder
        states = [member.encoder.state_dict() for member in members]
        mean = {name: torch.stack([state[name].float() for state in states]).mean(0) for name in states[0]}
        super().__init__(copy.deepcopy(encoder), num_domains, "none", 0.0)
        self.encoder.load_state_dict(mean)
        self.members = nn.ModuleList(members)

    def outputs(self, batch: Batch, layers: TeacherLayers = NO_LAYERS) -> TeacherOutputs:
        """Logits are the logarithm of the mean probability, h is the mean of theirs, as of a domain they never saw."""
        if layers:
            raise InputError(
                "several teachers have no layers in common; learn from what they predict: --terms prediction"
            )
        strange = batch | {"domains": torch.full_like(batch["domains"], UNKNOWN_DOMAIN)}
        said = [cast(MetaTeacher, member).outputs(strange) for member in self.members]
        logits = torch.stack([outputs.logits.float().log_softmax(-1) for outputs in said])
        h = torch.stack([outputs.representation for outputs in said])
        return TeacherOutputs(logits.logsumexp(0) - math.log(len(said)), h.mean(0), {}, {})
