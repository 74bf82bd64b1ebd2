"""Log-probabilities of commands from logits, as `fedoel.protocol.actions` defines them, in numpy."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..policy import LogProbs
from ..tokens import TokenizedSituation


def command_log_probs(row: TokenizedSituation, logits_NV: NDArray[np.float32], tokens_V: NDArray[np.int64]) -> LogProbs:
    """Log-probabilities of one row's commands, shape (A,).

    Parameters
    ----------
    logits_NV
        Logits at the nodes that have choices, in the nodes' order.
    tokens_V
        Token ids of the columns, in ascending order; they include the row's vocabulary.
    """
    tree = row.tree
    if not len(tree.choice_token):
        return np.zeros(len(tree.uses), dtype=np.float32)
    row_logits_NV = logits_NV[:, np.searchsorted(tokens_V, row.vocabulary)].astype(np.float64)
    node_C = np.unique(tree.choice_node, return_inverse=True)[1]
    chosen_C = logits_NV[node_C, np.searchsorted(tokens_V, tree.choice_token)]
    scores_A = tree.uses @ (chosen_C - np.logaddexp.reduce(row_logits_NV, axis=1)[node_C])
    log_probs: LogProbs = (scores_A - np.logaddexp.reduce(scores_A)).astype(np.float32)
    return log_probs
