"""Log-probabilities of commands from logits, and gradients of their scores for the last hidden states, in numpy."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..policy import LogProbs
from ..tokens import TokenizedSituation

Floats = NDArray[np.float32]


def command_log_probs(row: TokenizedSituation, logits_NV: NDArray[np.float32], tokens_V: NDArray[np.int64]) -> LogProbs:
    """Log-probabilities of one row's commands, as `fedoel.protocol.actions` defines them, shape (A,).

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


class Readout:
    """Weights of the last norm and of the LM head, which give score gradients.

    Parameters
    ----------
    file
        The GGUF file that the model was loaded from.
    """

    def __init__(self, file: Path) -> None:
        from gguf import GGUFReader

        tensors = {tensor.name: tensor for tensor in GGUFReader(file).tensors}
        self._head: Any = tensors.get("output.weight", tensors["token_embd.weight"])
        self.gamma_d = np.array(tensors["output_norm.weight"].data, dtype=np.float32)

    def rows(self, tokens: NDArray[np.int64]) -> Floats:
        """Rows of the LM head, shape (len(tokens), hidden)."""
        from gguf.quants import dequantize

        return np.asarray(dequantize(self._head.data[tokens], self._head.tensor_type), dtype=np.float32)

    def score_gradients(self, row: TokenizedSituation, normed_Nd: Floats) -> Floats:
        """Gradients of a row's command scores, as `fedoel.policies.torch.steered` defines them, shape (A, hidden).

        Parameters
        ----------
        normed_Nd
            Normed hidden states at the row's nodes that have choices.
        """
        if not len(row.tree.choice_token):
            return np.zeros((len(row.tree.uses), len(self.gamma_d)), dtype=np.float32)
        node_C = np.unique(row.tree.choice_node, return_inverse=True)[1]
        head_Vd = self.rows(row.vocabulary)
        logits_NV = normed_Nd @ head_Vd.T
        probs_NV = np.exp(logits_NV - np.logaddexp.reduce(logits_NV, axis=1, keepdims=True))
        hidden_Nd = normed_Nd / self.gamma_d
        unit_Cd = (hidden_Nd / np.linalg.norm(hidden_Nd, axis=1, keepdims=True))[node_C]
        logit_gradient_Cd = self.gamma_d * (self.rows(row.tree.choice_token) - (probs_NV @ head_Vd)[node_C])
        gradient_Cd = logit_gradient_Cd - unit_Cd * (unit_Cd * logit_gradient_Cd).sum(axis=1, keepdims=True)
        gradients_Ad: Floats = row.tree.uses @ (math.sqrt(len(self.gamma_d)) * gradient_Cd)
        return gradients_Ad
