"""The base model's file on a device: its digest is compared before anything reads it as a model."""

from __future__ import annotations

from ...policies.model_files import find_model, model_digest
from ...protocol.config import RunConfig
from ...protocol.errors import ModelError
from .folder import DeviceFolder, joined
from .settings import read_settings


def check_model(folder: DeviceFolder, config: RunConfig | None = None) -> None:
    """Compare the SHA-256 of the device's base model with the one in the fleet's bundle.

    A parser of GGUF files or of tensors is not handed a file that was swapped or damaged.

    Parameters
    ----------
    config
        The run that is to be played; one without a language model reads no file.

    Raises
    ------
    ModelError
        If there is no such file, or it is another one.
    """
    digest = joined(folder).model
    if not digest or (config and config.policy.backend == "tactics"):
        return
    path = find_model(read_settings(folder.settings).model.file)
    if model_digest(path) != digest:
        raise ModelError(
            f"{path} is another model: put the file with SHA-256 {digest} here, and name it in {folder.settings}"
        )
