"""Packed attention over segments: sequences of any length side by side, without padding outside of attention.

Tokens of all sequences lie one after the other in one row, so that every linear layer sees exactly the tokens there
are. A `Layout` says which tokens a sequence asks with and which it may look at: its own, and those of the segments
before it (the head of the prompt, the scene), which several sequences share. Only inside attention are sequences
gathered into padded batches, those of like size together.

Shapes: T packed tokens, K packed keys (cached ones first, then the T own ones), B sequences, Q and S the longest
query and key spans, H heads, G key-value heads, R = H / G query heads for each, M = R Q, D head size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AttentionInterface

from ..spans import Span

NAME = "fedoel_segments"
KeyValues = tuple[torch.Tensor, torch.Tensor]
LARGEST_PADDING = 1.3  # as a factor on the products that attention has to compute
SMALL = 20_000  # products that are not worth a batch of their own


@dataclass(frozen=True, slots=True)
class Group:
    """Sequences of like size in one padded batch."""

    queries_BQ: torch.Tensor
    keys_BS: torch.Tensor
    mask_B11QS: torch.Tensor


@dataclass(frozen=True, slots=True)
class Layout:
    """Where packed tokens go inside attention; `back_T` finds them again among all groups' padded queries."""

    positions_T: torch.Tensor
    groups: tuple[Group, ...]
    back_T: torch.Tensor


@dataclass
class Attended:
    """What one packed pass carries through the layers: the layout, cached keys and values, and those it makes."""

    layout: Layout
    cached: dict[int, KeyValues] = field(default_factory=dict)
    made: dict[int, KeyValues] | None = None


def build_layout(spans: Sequence[Span], cached_keys: int, device: torch.device) -> Layout:
    """Lay out sequences; own token i of the packed row is key ``cached_keys + i``."""
    starts = np.cumsum([0, *(span.length for span in spans)])
    back = np.empty(starts[-1], dtype=np.int64)
    groups: list[Group] = []
    padded = 0
    for members in _alike(spans):
        longest = max(spans[index].length for index in members)
        for row, index in enumerate(members):
            own = np.arange(spans[index].length)
            back[starts[index] + own] = padded + row * longest + own
        groups.append(_group([spans[index] for index in members], starts[members], cached_keys, device))
        padded += len(members) * longest
    positions = np.concatenate([span.positions for span in spans])
    return Layout(_tensor(positions, device), tuple(groups), _tensor(back, device))


def _alike(spans: Sequence[Span]) -> list[list[int]]:
    """Put sequences together as long as padding adds little to the work that has to be done anyway."""
    sizes = [(span.length, span.length + len(span.context)) for span in spans]
    groups: list[list[int]] = []
    work = longest_query = longest_key = 0
    for index in sorted(range(len(spans)), key=lambda i: sizes[i][0] * sizes[i][1]):
        query, key = sizes[index]
        work, longest_query, longest_key = work + query * key, max(longest_query, query), max(longest_key, key)
        if groups and (len(groups[-1]) + 1) * longest_query * longest_key <= LARGEST_PADDING * work + SMALL:
            groups[-1].append(index)
        else:
            groups.append([index])
            work, longest_query, longest_key = query * key, query, key
    return groups


def _group(spans: Sequence[Span], starts: NDArray[np.int64], cached_keys: int, device: torch.device) -> Group:
    longest_query = max(span.length for span in spans)
    longest_key = max(span.length + len(span.context) for span in spans)
    queries = np.zeros((len(spans), longest_query), dtype=np.int64)
    keys = np.zeros((len(spans), longest_key), dtype=np.int64)
    mask = np.zeros((len(spans), longest_query, longest_key), dtype=bool)
    for row, (span, start) in enumerate(zip(spans, starts, strict=True)):
        own = np.arange(start, start + span.length)
        known = len(span.context)
        queries[row, : span.length] = own
        keys[row, : known + span.length] = np.concatenate([span.context, cached_keys + own])
        mask[row, : span.length, :known] = True
        mask[row, : span.length, known : known + span.length] = span.sees
        mask[row, span.length :, 0] = True  # a padded query must look at something, or softmax gives NaN
    bias = np.where(mask, np.float32(0), np.finfo(np.float32).min)[:, None, None]
    return Group(_tensor(queries, device), _tensor(keys, device), _tensor(bias, device))


def _tensor(array: NDArray[Any], device: torch.device) -> torch.Tensor:
    return torch.from_numpy(array).to(device)


def attend(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    attended: Attended | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Attention function for transformers: packed ``(1, H, T, D)`` in, ``(1, T, H, D)`` out."""
    if attended is None:
        raise RuntimeError("this model attends over segments: run it through fedoel.policies.torch.trunk")
    layer: int = module.layer_idx  # type: ignore[assignment]
    if attended.made is not None:
        attended.made[layer] = (key[0], value[0])
    keys_GKD, values_GKD = key[0], value[0]
    if layer in attended.cached:
        before_keys, before_values = attended.cached[layer]
        keys_GKD = torch.cat([before_keys, keys_GKD], dim=1)
        values_GKD = torch.cat([before_values, values_GKD], dim=1)
    scaled = query[0] * (scaling or query.shape[3] ** -0.5)
    out_NHD = torch.cat([_attend_group(scaled, keys_GKD, values_GKD, group) for group in attended.layout.groups])
    return out_NHD[attended.layout.back_T][None], None


def _attend_group(
    query_HTD: torch.Tensor, keys_GKD: torch.Tensor, values_GKD: torch.Tensor, group: Group
) -> torch.Tensor:
    """Attention of one padded batch, shape (B Q, H, D).

    The query heads that share a key head stand in one matrix with it: no key is copied for each of them. Written out
    rather than by scaled_dot_product_attention, which is many times slower for short masked sequences on a CPU.
    """
    (heads, _, size), groups = query_HTD.shape, len(keys_GKD)
    rows, longest = group.queries_BQ.shape
    queries_GRBQD = query_HTD.view(groups, heads // groups, -1, size)[:, :, group.queries_BQ]
    queries_BGMD = queries_GRBQD.permute(2, 0, 1, 3, 4).reshape(rows, groups, -1, size)
    scores_BGMS = queries_BGMD @ _gather(keys_GKD, group.keys_BS).transpose(2, 3)
    scores_BGRQS = scores_BGMS.view(rows, groups, heads // groups, longest, -1)
    weights = (scores_BGRQS + group.mask_B11QS).softmax(-1).view_as(scores_BGMS)
    out_BGRQD = (weights @ _gather(values_GKD, group.keys_BS)).view(rows, groups, heads // groups, longest, size)
    return out_BGRQD.permute(0, 3, 1, 2, 4).reshape(rows * longest, heads, size)


def _gather(values_GKD: torch.Tensor, keys_BS: torch.Tensor) -> torch.Tensor:
    """Pick each sequence's keys: (B, G, S, D)."""
    return values_GKD[:, keys_BS].transpose(0, 1)


def register() -> None:
    """Make the attention function known to transformers under `NAME`; harmless when repeated."""
    AttentionInterface.register(NAME, attend)
