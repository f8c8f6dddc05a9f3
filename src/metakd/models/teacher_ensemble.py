"""A teacher that averages the predictions of several."""

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
    """The mean prediction of several teachers [You et al., KDD 2017], without layers to match.

    `encoder`, from which students may be cut, has the mean of their weights.
    """

    def __init__(self, members: Sequence[MetaTeacher], num_domains: int) -> None:
        states = [member.encoder.state_dict() for member in members]
        mean = {name: torch.stack([state[name].float() for state in states]).mean(0) for name in states[0]}
        super().__init__(copy.deepcopy(members[0].encoder), num_domains, "none", 0.0)
        self.encoder.load_state_dict(mean)
        self.members = nn.ModuleList(members)

    def outputs(self, batch: Batch, layers: TeacherLayers = NO_LAYERS) -> TeacherOutputs:
        """Logits that are the logarithm of the mean probability, and the mean h, both as for an unknown domain."""
        if layers:
            raise InputError(
                "several teachers have no layers in common; learn from what they predict: --terms prediction"
            )
        batch = batch | {"domains": torch.full_like(batch["domains"], UNKNOWN_DOMAIN)}
        outputs = [cast(MetaTeacher, member).outputs(batch) for member in self.members]
        log_p = torch.stack([each.logits.float().log_softmax(-1) for each in outputs])
        h = torch.stack([each.representation for each in outputs])
        return TeacherOutputs(log_p.logsumexp(0) - math.log(len(outputs)), h.mean(0), {}, {})
