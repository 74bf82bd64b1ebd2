"""How far a version has moved from the base model outside of its games: mean KL per token on a general text.

Wins do not show it: a student can play better and have lost the rest. Perplexity shows it late, because it asks for the
tokens of the text alone; the divergence compares the whole distribution over the next token.
"""

from __future__ import annotations

import torch

from .states import POSITIONS


@torch.inference_mode()
def mean_kl(student_Td: torch.Tensor, base_Td: torch.Tensor, head_Vd: torch.Tensor) -> float:
    """Return ``mean_t KL(p(. | tokens_<=t) || p_base(. | tokens_<=t))`` in nats, under a head.

    Parameters
    ----------
    student_Td, base_Td
        Normed hidden states of both on the same text, shapes ``(tokens, hidden)``.
    """
    total = 0.0
    for student_nd, base_nd in zip(student_Td.split(POSITIONS), base_Td.split(POSITIONS), strict=True):
        log_p_nV, log_q_nV = (torch.log_softmax((hidden @ head_Vd.T).float(), -1) for hidden in (student_nd, base_nd))
        total += float((log_p_nV.exp() * (log_p_nV - log_q_nV)).sum())
    return max(0.0, total / len(student_Td))
