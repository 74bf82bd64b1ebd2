from __future__ import annotations

from itertools import accumulate

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from fedoel.policies.tokens import PackedSequence, causal
from fedoel.policies.torch.packed_attention import LARGEST_PADDING, SMALL, build_layout

CACHED = 200
sizes = st.lists(st.tuples(st.integers(1, 60), st.integers(0, CACHED)), min_size=1, max_size=20)


@given(sizes)
def test_every_token_is_in_one_batch_and_padding_is_bounded(lengths: list[tuple[int, int]]) -> None:
    sequences = [PackedSequence(own, known + np.arange(own), np.arange(known), causal(own)) for own, known in lengths]
    layout = build_layout(sequences, np.arange(CACHED), torch.device("cpu"))
    asked = torch.cat([group.queries_BQ.flatten() for group in layout.groups])
    assert torch.equal(asked[layout.back_T], torch.arange(sum(own for own, _ in lengths)))
    starts = accumulate((own for own, _ in lengths), initial=0)
    areas = {start: own * (own + known) for start, (own, known) in zip(starts, lengths, strict=False)}
    for group in layout.groups:
        work = sum(areas[start] for start in group.queries_BQ[:, 0].tolist())
        assert group.mask_B11QS.numel() <= LARGEST_PADDING * work + SMALL
