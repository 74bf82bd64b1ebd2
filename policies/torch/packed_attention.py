"""Attention over packed sequences: a block-diagonal mask with shared prefixes, without padding outside of attention.

The tokens of all sequences are concatenated, so that linear layers compute no padding. A sequence attends to its own
tokens and to cached prefixes (the head of the prompt, the scene) that several sequences share. Only inside attention
are sequences gathered into padded batches, those of similar size together.

Shapes: T packed tokens; K packed keys, cached ones before those of the T tokens; B sequences of a padded batch; Q and S
its longest sequences of queries and keys; H heads; G key-value heads; R = H / G query heads for each; M = R Q; D head
size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AttentionInterface

from ..tokens import PackedSequence

NAME = "fedoel_segments"  # of the attention function in transformers
KeyValues = tuple[torch.Tensor, torch.Tensor]
Positions = NDArray[np.int64]
LARGEST_PADDING = 1.3  # query-key pairs of a padded batch, as a multiple of those without padding
SMALL = 20_000  # query-key pairs that are not worth a batch of their own


@dataclass(frozen=True, slots=True)
class Group:
    """Sequences of similar size in one padded batch: indices of their tokens and keys, and the additive masks.

    `window_B11QS` is the mask of layers that attend to a sliding window; None where all keys are within the window.
    """

    queries_BQ: torch.Tensor
    keys_BS: torch.Tensor
    mask_B11QS: torch.Tensor
    window_B11QS: torch.Tensor | None = None


@dataclass(frozen=True, slots=True)
class Layout:
    """Packed tokens by padded batch; `back_T` holds each token's index among the queries of all batches."""

    positions_T: torch.Tensor
    groups: tuple[Group, ...]
    back_T: torch.Tensor


@dataclass
class AttentionInputs:
    """What attention needs beside queries, keys and values.

    Parameters
    ----------
    layout
        The packed sequences.
    cached
        Keys and values of the prefixes, by layer.
    computed
        Where to store the keys and values that this forward pass computes, by layer; None drops them.
    """

    layout: Layout
    cached: dict[int, KeyValues] = field(default_factory=dict)
    computed: dict[int, KeyValues] | None = None


def build_layout(
    sequences: Sequence[PackedSequence], cached: Positions, device: torch.device, window: int | None = None
) -> Layout:
    """Lay out sequences; packed token i has the key ``len(cached) + i``.

    Parameters
    ----------
    cached
        Positions of the cached keys in their prompts, shape (number of cached keys,).
    window
        Length of the sliding window of those layers that have one.
    """
    positions = np.concatenate([sequence.positions for sequence in sequences])
    keys = np.concatenate([cached, positions])
    if window is not None and positions.max() < window:
        window = None
    starts = np.cumsum([0, *(sequence.length for sequence in sequences)])
    back = np.empty(starts[-1], dtype=np.int64)
    groups: list[Group] = []
    padded = 0
    for members in _similar(sequences):
        longest = max(sequences[index].length for index in members)
        for row, index in enumerate(members):
            tokens = np.arange(sequences[index].length)
            back[starts[index] + tokens] = padded + row * longest + tokens
        groups.append(
            _group([sequences[index] for index in members], starts[members], len(cached), keys, window, device)
        )
        padded += len(members) * longest
    return Layout(_tensor(positions, device), tuple(groups), _tensor(back, device))


def _similar(sequences: Sequence[PackedSequence]) -> list[list[int]]:
    """Group sequences greedily by size, as long as padding adds at most `LARGEST_PADDING` to the query-key pairs."""
    sizes = [(sequence.length, sequence.length + len(sequence.prefix_keys)) for sequence in sequences]
    groups: list[list[int]] = []
    work = longest_query = longest_key = 0
    for index in sorted(range(len(sequences)), key=lambda i: sizes[i][0] * sizes[i][1]):
        query, key = sizes[index]
        work, longest_query, longest_key = work + query * key, max(longest_query, query), max(longest_key, key)
        if groups and (len(groups[-1]) + 1) * longest_query * longest_key <= LARGEST_PADDING * work + SMALL:
            groups[-1].append(index)
        else:
            groups.append([index])
            work, longest_query, longest_key = query * key, query, key
    return groups


def _group(
    sequences: Sequence[PackedSequence],
    starts: NDArray[np.int64],
    cached_keys: int,
    key_positions: Positions,
    window: int | None,
    device: torch.device,
) -> Group:
    longest_query = max(sequence.length for sequence in sequences)
    longest_key = max(sequence.length + len(sequence.prefix_keys) for sequence in sequences)
    queries = np.zeros((len(sequences), longest_query), dtype=np.int64)
    keys = np.zeros((len(sequences), longest_key), dtype=np.int64)
    mask = np.zeros((len(sequences), longest_query, longest_key), dtype=bool)
    positions = np.zeros((len(sequences), longest_query), dtype=np.int64)
    for row, (sequence, start) in enumerate(zip(sequences, starts, strict=True)):
        length, prefix = sequence.length, len(sequence.prefix_keys)
        tokens = np.arange(start, start + length)
        queries[row, :length], positions[row, :length] = tokens, sequence.positions
        keys[row, : prefix + length] = np.concatenate([sequence.prefix_keys, cached_keys + tokens])
        mask[row, :length, :prefix] = True if sequence.prefix_mask is None else sequence.prefix_mask
        mask[row, :length, prefix : prefix + length] = sequence.mask
        mask[row, length:, 0] = True  # a padded query must attend to some key, or softmax gives NaN
    near = None
    if window is not None:
        distance = positions[:, :, None] - key_positions[keys][:, None, :]
        near = _bias(mask & (distance < window), device)
    return Group(_tensor(queries, device), _tensor(keys, device), _bias(mask, device), near)


def _bias(mask: NDArray[np.bool_], device: torch.device) -> torch.Tensor:
    return _tensor(np.where(mask, np.float32(0), np.finfo(np.float32).min)[:, None, None], device)


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
    attention_inputs: AttentionInputs | None = None,
    sliding_window: int | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Attention function for transformers: packed ``(1, H, T, D)`` in, ``(1, T, H, D)`` out.

    What else a model asks of attention, such as a cap on scores, is left out: `fedoel.policies.torch.exactness` refuses
    models that need it.
    """
    if attention_inputs is None:
        raise RuntimeError("this model attends over packed sequences: run it through fedoel.policies.torch.trunk")
    layer: int = module.layer_idx  # type: ignore[assignment]
    if attention_inputs.computed is not None:
        attention_inputs.computed[layer] = (key[0], value[0])
    keys_GKD, values_GKD = key[0], value[0]
    if layer in attention_inputs.cached:
        cached_keys, cached_values = attention_inputs.cached[layer]
        keys_GKD = torch.cat([cached_keys, keys_GKD], dim=1)
        values_GKD = torch.cat([cached_values, values_GKD], dim=1)
    scaled = query[0] * (scaling or query.shape[3] ** -0.5)
    layout = attention_inputs.layout
    windowed = sliding_window is not None
    out_NHD = torch.cat([_attend_group(scaled, keys_GKD, values_GKD, group, windowed) for group in layout.groups])
    return out_NHD[layout.back_T][None], None


def _attend_group(
    query_HTD: torch.Tensor, keys_GKD: torch.Tensor, values_GKD: torch.Tensor, group: Group, windowed: bool
) -> torch.Tensor:
    """Attention of one padded batch, shape (B Q, H, D).

    Query heads that share a key head form one matrix product with it, so that keys are not copied per query head. The
    products are written out: scaled_dot_product_attention is many times slower for short masked sequences on CPUs.
    """
    (heads, _, size), groups = query_HTD.shape, len(keys_GKD)
    rows, longest = group.queries_BQ.shape
    queries_GRBQD = query_HTD.view(groups, heads // groups, -1, size)[:, :, group.queries_BQ]
    queries_BGMD = queries_GRBQD.permute(2, 0, 1, 3, 4).reshape(rows, groups, -1, size)
    scores_BGMS = queries_BGMD @ _gather(keys_GKD, group.keys_BS).transpose(2, 3)
    scores_BGRQS = scores_BGMS.view(rows, groups, heads // groups, longest, -1)
    mask = group.window_B11QS if windowed and group.window_B11QS is not None else group.mask_B11QS
    weights = (scores_BGRQS + mask).softmax(-1).view_as(scores_BGMS)
    out_BGRQD = (weights @ _gather(values_GKD, group.keys_BS)).view(rows, groups, heads // groups, longest, size)
    return out_BGRQD.permute(0, 3, 1, 2, 4).reshape(rows * longest, heads, size)


def _gather(values_GKD: torch.Tensor, keys_BS: torch.Tensor) -> torch.Tensor:
    """Gather each sequence's keys or values, shape (B, G, S, D)."""
    return values_GKD[:, keys_BS].transpose(0, 1)


def register() -> None:
    """Register the attention function in transformers under `NAME`; may be repeated."""
    AttentionInterface.register(NAME, attend)
