"""Divergences between student and teacher over tokens, for text that the student wrote freely.

Where commands are not walked as a tree, a position has a whole vocabulary: 49,152 tokens in a small model. What is
computed here never holds more than a few positions of that at a time. The forward pass goes through the head chunk by
chunk and takes the gradient with respect to the hidden states along the way, so that the backward pass needs no logits.

Ways to get it wrong that are ruled out: the most likely tokens are the *student's*, since over the teacher's its mass
can leave the set while the loss falls; the forward divergence of a part of the vocabulary needs the rest as one more
outcome, or it turns negative; expectations are exact and not from one sample; the teacher gets no gradient. The reverse
divergence over a part without its rest, the OPCD paper's (arXiv 2602.12275), is none in the strict sense: it can be a
little less than zero where the student moves away from the part.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint

from ...protocol.config import DIVERGENCES, DistilConfig
from ...protocol.errors import ConfigError

CHUNK = 64  # positions: 12 MB of logits in float32


@dataclass(frozen=True, slots=True)
class TokenLoss:
    """Which divergence, and over what.

    Parameters
    ----------
    divergence
        ``reverse-kl`` is KL(student || teacher), ``forward-kl`` KL(teacher || student), ``jsd`` the generalised
        Jensen-Shannon divergence (GKD, arXiv 2306.13649).
    top_k
        How many of the student's most likely tokens count; 0 for the whole vocabulary.
    tail
        Whether all other tokens together are one more outcome.
    renormalise
        Whether both distributions are normalised over the tokens that count.
    temperature
        Divides the logits of both.
    beta
        Weight of the teacher in the mixture of ``jsd``; between 0 and 1.

    Raises
    ------
    ConfigError
        If these contradict each other, or the divergence can be negative.
    """

    divergence: str = "reverse-kl"
    top_k: int = 256
    tail: bool = False
    renormalise: bool = False
    temperature: float = 1.0
    beta: float = 0.5

    def __post_init__(self) -> None:
        if self.divergence not in DIVERGENCES:
            raise ConfigError(f"unknown divergence {self.divergence!r}; known are {', '.join(DIVERGENCES)}")
        if self.top_k < 0 or self.temperature <= 0 or not 0 < self.beta < 1:
            raise ConfigError("top_k must not be negative, temperature more than 0, beta between 0 and 1")
        if self.tail and self.renormalise:
            raise ConfigError("choose one: the tail as an outcome of its own, or both sides normalised without it")
        if self.divergence != "reverse-kl" and self.top_k and not (self.tail or self.renormalise):
            raise ConfigError(f"{self.divergence} over {self.top_k} tokens can be negative: set tail or renormalise")


def token_loss(config: DistilConfig) -> TokenLoss:
    """Read the loss of a configuration; raises what `TokenLoss` raises."""
    return TokenLoss(config.divergence, config.top_k, config.tail, config.renormalise, config.temperature, config.beta)


@dataclass(frozen=True, slots=True)
class Coverage:
    """How much of each distribution the tokens that counted held, means over positions: watch both while training."""

    student: float
    teacher: float


def token_divergence(
    student: torch.Tensor, teacher: torch.Tensor, loss: TokenLoss
) -> tuple[torch.Tensor, torch.Tensor]:
    """Divergence at every position from logits of shape (n, vocabulary), and both masses that counted, (2, n).

    Vocabularies that a family of models pads differently are cut to the shorter.
    """
    width = min(student.shape[-1], teacher.shape[-1])
    log_s, log_t = ((x[:, :width].float() / loss.temperature).log_softmax(-1) for x in (student, teacher))
    if loss.top_k and loss.top_k < width:
        chosen = log_s.detach().topk(loss.top_k, dim=-1).indices
        log_s, log_t = log_s.gather(-1, chosen), log_t.gather(-1, chosen)
    masses = torch.stack([log_s.detach().exp().sum(-1), log_t.exp().sum(-1)])
    if loss.tail:
        log_s, log_t = (torch.cat([x, _rest(x)], dim=-1) for x in (log_s, log_t))
    if loss.renormalise:
        log_s, log_t = log_s.log_softmax(-1), log_t.log_softmax(-1)
    return compare(log_s, log_t, loss), masses


def _rest(log_probs: torch.Tensor) -> torch.Tensor:
    """Log-probability of everything that is not listed, shape (n, 1); rounding may leave nothing."""
    tiny = torch.finfo(log_probs.dtype).tiny
    return (1 - log_probs.exp().sum(-1, keepdim=True)).clamp_min(tiny).log()


def compare(log_s: torch.Tensor, log_t: torch.Tensor, loss: TokenLoss) -> torch.Tensor:
    """Divergence between log-distributions over the same outcomes, along the last dimension."""
    if loss.divergence == "reverse-kl":
        return _kl(log_s, log_t)
    if loss.divergence == "forward-kl":
        return _kl(log_t, log_s)
    weights = log_s.new_tensor([1 - loss.beta, loss.beta]).log()
    mixed = torch.logaddexp(log_s + weights[0], log_t + weights[1])
    return loss.beta * _kl(log_t, mixed) + (1 - loss.beta) * _kl(log_s, mixed)


def _kl(of: torch.Tensor, to: torch.Tensor) -> torch.Tensor:
    return (of.exp() * (of - to)).sum(-1)


def chunked_divergence(
    student_Nd: torch.Tensor,
    teacher_Nd: torch.Tensor,
    head_Vd: torch.Tensor,
    loss: TokenLoss,
    teacher_head_Vd: torch.Tensor | None = None,
    chunk: int = CHUNK,
) -> tuple[torch.Tensor, Coverage]:
    """Divergence at every position, from what stands before a frozen head.

    Parameters
    ----------
    student_Nd, teacher_Nd
        Normed hidden states at the same positions of the response, shape (N, hidden).
    head_Vd, teacher_head_Vd
        Rows of the language-model heads; one head serves both where none is given for the teacher.

    Returns
    -------
    losses
        Shape (N,), differentiable in `student_Nd`.
    coverage
        What the tokens that counted held.
    """
    if len(student_Nd) != len(teacher_Nd):
        raise ValueError(f"{len(student_Nd)} positions of the student, {len(teacher_Nd)} of the teacher: not aligned")
    heads = head_Vd, head_Vd if teacher_head_Vd is None else teacher_head_Vd
    losses, masses = _Chunked.apply(student_Nd, teacher_Nd.detach(), heads, loss, chunk)  # type: ignore[no-untyped-call]
    return losses, Coverage(*masses.mean(-1).tolist())


def mean_over_sequences(losses_N: torch.Tensor, lengths: Sequence[int]) -> torch.Tensor:
    """Mean over the tokens of each response, then over responses: a long one counts no more than a short one."""
    parts = [part.mean() for part in losses_N.split(list(lengths)) if len(part)]
    return torch.stack(parts).mean() if parts else losses_N.sum()


class _Chunked(torch.autograd.Function):
    """Runs the head on a few positions at a time and keeps gradients of hidden states instead of logits."""

    @staticmethod
    def forward(
        ctx: Any, student_Nd: torch.Tensor, teacher_Nd: torch.Tensor, heads: Any, loss: TokenLoss, chunk: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        losses, masses, gradients = [], [], []
        for own_nd, other_nd in zip(student_Nd.split(chunk), teacher_Nd.split(chunk), strict=True):
            with torch.enable_grad():
                leaf_nd = own_nd.detach().requires_grad_()
                found_n, mass = token_divergence(leaf_nd @ heads[0].T, other_nd @ heads[1].T, loss)
                gradients += torch.autograd.grad(found_n.sum(), leaf_nd)
            losses.append(found_n.detach())
            masses.append(mass)
        ctx.save_for_backward(torch.cat(gradients))
        ctx.mark_non_differentiable(whole := torch.cat(masses, dim=-1))
        return torch.cat(losses), whole

    @staticmethod
    def backward(ctx: Any, *upstream: Any) -> tuple[torch.Tensor, None, None, None, None]:
        (gradient_Nd,) = ctx.saved_tensors
        return gradient_Nd * upstream[0][:, None], None, None, None, None


def surprise(
    student_Nd: torch.Tensor, tokens_N: torch.Tensor, head_Vd: torch.Tensor, chunk: int = CHUNK
) -> torch.Tensor:
    """Minus the log-probability of the token at every position, shape (N,), with logits of one chunk at a time."""

    def of(part_nd: torch.Tensor, wanted_n: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.cross_entropy((part_nd @ head_Vd.T).float(), wanted_n, reduction="none")

    parts = zip(student_Nd.split(chunk), tokens_N.split(chunk), strict=True)
    return torch.cat([checkpoint(of, part, wanted, use_reentrant=False) for part, wanted in parts])
