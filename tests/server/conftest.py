"""A tiny model that writes, with an adapter that changes what it says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fedoel.policies.torch.base import load_base
from fedoel.policies.torch.model import TorchModel
from fedoel.protocol.config import PolicyConfig
from fedoel.protocol.prompts import Style


@pytest.fixture
def model(tiny_base: Path, tmp_path: Path) -> TorchModel:
    config = PolicyConfig(base=str(tiny_base), device="cpu", precision="fp32", threads=1, lora_layers=2, lora_rank=4)
    model = TorchModel(load_base(config, tmp_path), 512, Style(free=True))
    rng = np.random.default_rng(1)
    model.load({name: rng.normal(0, 0.1, array.shape).astype(np.float32) for name, array in model.fresh.items()})
    return model
