"""A device with llama.cpp and without torch plays games and makes vectors."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("llama_cpp", reason="llama.cpp is not installed: make setup LLAMA=1")

PROBE = """
import sys

BLOCKED = {"peft", "safetensors", "textworld", "tokenizers", "torch", "transformers"}


class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in BLOCKED:
            raise ModuleNotFoundError(f"No module named {name!r}: this device has none")


sys.meta_path.insert(0, Missing())

from pathlib import Path

import numpy as np

from fedoel.client import app  # a device's whole app loads
from fedoel.codecs.encoder import load_encoder
from fedoel.games.player import play_episodes
from fedoel.policies.backend import load_version
from fedoel.protocol.config import PolicyConfig
from fedoel.protocol.play import GameSpec

base, cache, codec = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
rng = np.random.default_rng(0)
name = "base_model.model.model.layers.3.self_attn.q_proj.lora_{}.weight"
adapter = {
    name.format("A"): rng.normal(0, 0.1, (4, 64)).astype(np.float32),
    name.format("B"): rng.normal(0, 0.1, (64, 4)).astype(np.float32),
}
config = PolicyConfig("llama", str(base), "cpu", threads=1, batch_tokens=1024)
policy, encoder = load_version(config, adapter, "", cache), load_encoder(codec)
policy = encoder.apply_context(policy, np.full(encoder.dimension, 0.01, np.float32))
games = [(GameSpec.parse("frozen-lake turns=6"), seed) for seed in range(3)]
played = play_episodes(policy, games, [1, 2, 3], cache)
turns = [turn for trajectory in played for turn in trajectory.turns]
gradient, fisher = encoder.gradient_and_fisher(policy, turns, np.ones(len(turns)))
assert len(played) == 3 and turns and np.isfinite(gradient).all() and fisher.any()
assert not BLOCKED & {module.partition(".")[0] for module in sys.modules}
print("played", len(turns))
"""


@pytest.mark.parametrize("codec", ["tactics", "steering"])
def test_a_device_without_torch_plays_and_encodes(tiny_gguf: Path, tmp_path: Path, codec: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROBE, str(tiny_gguf), str(tmp_path), codec], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("played")
    assert not done.stderr  # llama.cpp keeps its log to itself


UNINSTALLED = """
import sys
from pathlib import Path

sys.modules["llama_cpp"] = None
from fedoel.policies.backend import load_version
from fedoel.protocol.config import PolicyConfig
from fedoel.protocol.errors import ModelError

try:
    load_version(PolicyConfig("llama"), {}, "", Path())
except ModelError as error:
    print(error)
"""


def test_without_llama_cpp_the_error_says_what_to_install() -> None:
    done = subprocess.run([sys.executable, "-c", UNINSTALLED], capture_output=True, text=True)
    assert "pip install 'fedoel[llama]'" in done.stdout, done.stderr
