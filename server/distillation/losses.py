"""Divergences between student and teacher over tokens, for freely written text.

At every position of a response the outcomes are the whole vocabulary V (49,152 tokens in a small model). To bound
memory, `chunked_divergence` applies the head to a few positions at a time and takes the gradient with respect to the
hidden states on the way, so that the backward pass needs no logits.

* The top-k tokens are the *student's*. Over the teacher's top-k tokens, the loss could fall while the student's
  probability mass moves to other tokens.
* Forward KL and JSD over the top-k tokens need the tail bucket: all other tokens as one more outcome. Without it they
  can be negative. Reverse KL over the top-k tokens without a tail bucket, as in OPCD (arXiv 2602.12275), can be
  slightly negative too when the student moves mass into the tail; it is kept for comparison with the paper.
* Expectations over tokens are exact sums, not estimates from samples, and the teacher has no gradient.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint

from ...protocol.config import DIVERGENCES, DistilConfig
from ...protocol.errors import ConfigError

CHUNK = 64  # positions; their float32 logits take 12 MB in a small model


@dataclass(frozen=True, slots=True)
class TokenLoss:
    """A divergence between student and teacher at one position, and the outcomes over which it is taken.

    Parameters
    ----------
    divergence
        ``reverse-kl`` is KL(student || teacher), ``forward-kl`` is KL(teacher || student), and ``jsd`` is the
        generalised Jensen-Shannon divergence (GKD, arXiv 2306.13649).
    top_k
        Number of the student's most likely tokens that are compared; 0 means the whole vocabulary.
    tail
        Whether all other tokens together form one more outcome, the tail bucket.
    renormalise
        Whether both distributions are renormalised over the top-k tokens.
    temperature
        Divides the logits of student and teacher.
    beta
        Weight of the teacher in the mixture of ``jsd``; between 0 and 1.

    Raises
    ------
    ConfigError
        If the settings contradict each other, or allow a forward KL or JSD below zero.
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
            raise ConfigError("set tail or renormalise, not both")
        if self.divergence != "reverse-kl" and self.top_k and not (self.tail or self.renormalise):
            raise ConfigError(f"{self.divergence} over {self.top_k} tokens can be negative: set tail or renormalise")


def token_loss(config: DistilConfig) -> TokenLoss:
    """Return the loss of a configuration; raises as `TokenLoss` does."""
    return TokenLoss(config.divergence, config.top_k, config.tail, config.renormalise, config.temperature, config.beta)


@dataclass(frozen=True, slots=True)
class Coverage:
    """Probability mass of student and teacher on the compared tokens, as means over positions: a diagnostic."""

    student: float
    teacher: float


def token_divergence(
    student_nV: torch.Tensor, teacher_nV: torch.Tensor, loss: TokenLoss
) -> tuple[torch.Tensor, torch.Tensor]:
    """Compute the divergence at every position from logits.

    Parameters
    ----------
    student_nV, teacher_nV
        Logits, shape ``(n, V)``. If one vocabulary is padded to a larger size, the padding is cut off.

    Returns
    -------
    losses
        Divergences, shape ``(n,)``.
    masses
        Probability mass of student and teacher on the compared tokens, shape ``(2, n)``.
    """
    width = min(student_nV.shape[-1], teacher_nV.shape[-1])
    log_s, log_t = ((x[:, :width].float() / loss.temperature).log_softmax(-1) for x in (student_nV, teacher_nV))
    if loss.top_k and loss.top_k < width:
        top_nk = log_s.detach().topk(loss.top_k, dim=-1).indices
        log_s, log_t = log_s.gather(-1, top_nk), log_t.gather(-1, top_nk)
    masses_2n = torch.stack([log_s.detach().exp().sum(-1), log_t.exp().sum(-1)])
    if loss.tail:
        log_s, log_t = (torch.cat([x, _log_tail(x)], dim=-1) for x in (log_s, log_t))
    if loss.renormalise:
        log_s, log_t = log_s.log_softmax(-1), log_t.log_softmax(-1)
    return compare(log_s, log_t, loss), masses_2n


def _log_tail(log_probs_nk: torch.Tensor) -> torch.Tensor:
    """Log-probability of all tokens outside the top-k, shape (n, 1); clamped, since rounding may leave zero or less."""
    tiny = torch.finfo(log_probs_nk.dtype).tiny
    return (1 - log_probs_nk.exp().sum(-1, keepdim=True)).clamp_min(tiny).log()


def compare(log_s: torch.Tensor, log_t: torch.Tensor, loss: TokenLoss) -> torch.Tensor:
    """Divergence between the log-probabilities of student and teacher over the same outcomes, the last dimension.

    ``jsd`` is ``beta KL(t || m) + (1 - beta) KL(s || m)`` with the mixture ``m = beta t + (1 - beta) s``.
    """
    if loss.divergence == "reverse-kl":
        return reverse_kl(log_s, log_t)
    if loss.divergence == "forward-kl":
        return forward_kl(log_s, log_t)
    weights = log_s.new_tensor([1 - loss.beta, loss.beta]).log()
    log_m = torch.logaddexp(log_s + weights[0], log_t + weights[1])
    return loss.beta * reverse_kl(log_t, log_m) + (1 - loss.beta) * reverse_kl(log_s, log_m)


def reverse_kl(log_s: torch.Tensor, log_t: torch.Tensor) -> torch.Tensor:
    """KL(student || teacher) over the last dimension, in nats."""
    return (log_s.exp() * (log_s - log_t)).sum(-1)


def forward_kl(log_s: torch.Tensor, log_t: torch.Tensor) -> torch.Tensor:
    """KL(teacher || student) over the last dimension, in nats."""
    return reverse_kl(log_t, log_s)


def chunked_divergence(
    student_Nd: torch.Tensor,
    teacher_Nd: torch.Tensor,
    head_Vd: torch.Tensor,
    loss: TokenLoss,
    teacher_head_Vd: torch.Tensor | None = None,
    chunk: int = CHUNK,
) -> tuple[torch.Tensor, Coverage]:
    """Compute the divergence at every position from hidden states before a frozen head.

    Parameters
    ----------
    student_Nd, teacher_Nd
        Normed hidden states at the same positions of the responses, shape ``(N, hidden)``.
    head_Vd, teacher_head_Vd
        Weights of the language-model heads, shape ``(V, hidden)``; by default the teacher has the student's head.
    chunk
        Number of positions whose logits are in memory at a time.

    Returns
    -------
    losses
        Divergences, shape ``(N,)``, differentiable in `student_Nd`.
    coverage
        Probability mass on the compared tokens.
    """
    if len(student_Nd) != len(teacher_Nd):
        raise ValueError(f"{len(student_Nd)} positions of the student, {len(teacher_Nd)} of the teacher: not aligned")
    heads = head_Vd, head_Vd if teacher_head_Vd is None else teacher_head_Vd
    losses, masses = _Chunked.apply(student_Nd, teacher_Nd.detach(), heads, loss, chunk)  # type: ignore[no-untyped-call]
    return losses, Coverage(*masses.mean(-1).tolist())


def mean_over_sequences(losses_N: torch.Tensor, lengths: Sequence[int]) -> torch.Tensor:
    """Mean over the tokens of each response, then over responses, so that long responses do not dominate."""
    means = [losses_n.mean() for losses_n in losses_N.split(list(lengths)) if len(losses_n)]
    return torch.stack(means).mean() if means else losses_N.sum()


class _Chunked(torch.autograd.Function):
    """Applies the head to one chunk of positions at a time, and saves gradients of hidden states instead of logits."""

    @staticmethod
    def forward(
        ctx: Any, student_Nd: torch.Tensor, teacher_Nd: torch.Tensor, heads: Any, loss: TokenLoss, chunk: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        losses, masses, gradients = [], [], []
        for student_nd, teacher_nd in zip(student_Nd.split(chunk), teacher_Nd.split(chunk), strict=True):
            with torch.enable_grad():
                leaf_nd = student_nd.detach().requires_grad_()
                losses_n, masses_2n = token_divergence(leaf_nd @ heads[0].T, teacher_nd @ heads[1].T, loss)
                gradients += torch.autograd.grad(losses_n.sum(), leaf_nd)
            losses.append(losses_n.detach())
            masses.append(masses_2n)
        ctx.save_for_backward(torch.cat(gradients))
        ctx.mark_non_differentiable(masses_2N := torch.cat(masses, dim=-1))
        return torch.cat(losses), masses_2N

    @staticmethod
    def backward(ctx: Any, *upstream: Any) -> tuple[torch.Tensor, None, None, None, None]:
        (gradient_Nd,) = ctx.saved_tensors
        return gradient_Nd * upstream[0][:, None], None, None, None, None


def token_nll(
    student_Nd: torch.Tensor, tokens_N: torch.Tensor, head_Vd: torch.Tensor, chunk: int = CHUNK
) -> torch.Tensor:
    """Negative log-likelihood of the token at every position, shape ``(N,)``, with one chunk of logits at a time."""

    def nll(hidden_nd: torch.Tensor, target_n: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.cross_entropy((hidden_nd @ head_Vd.T).float(), target_n, reduction="none")

    parts = zip(student_Nd.split(chunk), tokens_N.split(chunk), strict=True)
    return torch.cat([checkpoint(nll, hidden_nd, target_n, use_reentrant=False) for hidden_nd, target_n in parts])
