"""Models on disk: `model.safetensors` (half precision) and `model.json` (shape, characters, card) in one folder.

Neither can run code. Checkpoints of training are read too, by torch's `weights_only` loader, which refuses pickles that
would.
"""

import json
import pickle
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from safetensors.torch import save as to_bytes

from khmer_ocr.errors import ConfigError, ModelError
from khmer_ocr.io.atomic import refuse_links, replacing
from khmer_ocr.model.presets import ModelConfig
from khmer_ocr.model.seq2seq import Seq2Seq
from khmer_ocr.text.charset import Charset

SHIPPED = Path(__file__).resolve().parents[1] / "weights" / "compact"
WEIGHTS, DESCRIPTION = "model.safetensors", "model.json"
FORMAT = 1


@dataclass(frozen=True)
class LoadedModel:
    """A model ready to read.

    Attributes:
        model: in eval mode, its normalisation folded into its convolutions.
        charset: what its token ids mean.
        card: preset, how it was trained, where it fails.
        source: where it came from.
    """

    model: Seq2Seq
    charset: Charset
    card: dict[str, Any]
    source: Path


def save_model(folder: str | Path, model: Seq2Seq, charset: Charset, card: dict[str, Any]) -> None:
    """Write a model's weights, shape, characters and card into a folder, each file atomically.

    Args:
        folder: made if it does not exist.
        model: not folded.
        charset: of the size the model was built for.
        card: plain values that JSON can hold.

    Raises:
        OSError: the folder cannot be written, or (`OutputError`) a symbolic link stands where a file goes.
    """
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    refuse_links(target, target / WEIGHTS, target / DESCRIPTION)
    state = {name: _half(value).contiguous().cpu() for name, value in model.state_dict().items()}
    description = {
        "format": FORMAT,
        "model": asdict(model.config),
        "characters": charset.characters,
        "charset_fingerprint": charset.fingerprint,
        "card": card,
    }
    with replacing(target / WEIGHTS) as partial:
        # Not by save_file: that makes files which only their owner may read, whatever the umask says.
        partial.write_bytes(to_bytes(state))
    with replacing(target / DESCRIPTION) as partial:
        partial.write_text(json.dumps(description, ensure_ascii=True, indent=1) + "\n", encoding="utf-8")


def load_model(path: str | Path | None = None, device: str | torch.device = "cpu") -> LoadedModel:
    """Load a model.

    Args:
        path: folder that `save_model` wrote, or a checkpoint of training (.pth); None takes the weights shipped.
        device: where it will read.

    Raises:
        ModelError: nothing is there, it is damaged, of an unknown format, or it is a pickle that would run code.
    """
    source = SHIPPED if path is None else Path(path)
    config, state, charset, card = read_state(source)
    model = Seq2Seq(config, len(charset))
    try:
        model.load_state_dict(state)
    except RuntimeError as fault:
        raise ModelError(f"{source}: the weights do not fit the shape it names ({config.preset}): {fault}") from fault
    return LoadedModel(model.to(device).fold(), charset, card, source)


def read_state(source: Path) -> tuple[ModelConfig, dict[str, torch.Tensor], Charset, dict[str, Any]]:
    """Read shape, weights (float32), characters and card of a folder or checkpoint; see `load_model`."""
    config, state, charset, card = (_from_checkpoint if source.is_file() else _from_folder)(source)
    floats = {name: value.float() if value.is_floating_point() else value for name, value in state.items()}
    return config, floats, charset, card


def _build_config(values: Any, source: Path) -> ModelConfig:
    """A shape as JSON or a checkpoint holds it; raises `ModelError` where it is none."""
    try:
        return ModelConfig(**values)
    except (TypeError, ConfigError) as fault:
        raise ModelError(f"{source} describes no model that this version can build: {fault}") from fault


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint of training without running anything in it.

    Raises:
        ModelError: it is missing, damaged, no checkpoint of ours, or holds code.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as fault:
        raise ModelError(f"{path} does not exist; expected a checkpoint (.pth).") from fault
    except pickle.UnpicklingError as fault:
        raise ModelError(
            f"{path} is refused: it holds more than tensors and plain values, and loading it could run code. "
            "Use a checkpoint that khmer-ocr train wrote."
        ) from fault
    except Exception as fault:  # bytes at random make the unpickler raise nearly anything
        raise ModelError(
            f"{path} cannot be read as a checkpoint: it is damaged or no checkpoint ({fault!r}). Use a file that "
            "khmer-ocr train wrote, or the folder model/ beside it."
        ) from fault
    if not isinstance(content, dict) or not {"model_config", "model", "characters"} <= content.keys():
        raise ModelError(f"{path} is no checkpoint of khmer-ocr train: model_config, model or characters are missing.")
    return content


def _from_checkpoint(source: Path) -> tuple[ModelConfig, dict[str, torch.Tensor], Charset, dict[str, Any]]:
    content = read_checkpoint(source)
    state = content.get("ema") or content["model"]
    return _build_config(content["model_config"], source), state, Charset(tuple(content["characters"])), {}


def _from_folder(source: Path) -> tuple[ModelConfig, dict[str, torch.Tensor], Charset, dict[str, Any]]:
    weights, description = source / WEIGHTS, source / DESCRIPTION
    try:
        document = json.loads(description.read_text(encoding="utf-8"))
        state = load_file(weights)
    except FileNotFoundError as fault:
        raise ModelError(
            f"{source} holds no model: {WEIGHTS} and {DESCRIPTION} are expected there. Train one with khmer-ocr train, "
            "or leave --model out for the weights that come with the package."
        ) from fault
    except (SafetensorError, ValueError, OSError) as fault:
        raise ModelError(f"{source} holds a damaged model ({fault}). Restore it from where it came.") from fault
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise ModelError(f"{description} is of an unknown format; this version reads format {FORMAT}.")
    charset = Charset(tuple(document.get("characters", ())))
    if charset.fingerprint != document.get("charset_fingerprint"):
        raise ModelError(f"{description}: the characters are not those the weights were trained for. Restore the file.")
    return _build_config(document.get("model"), source), state, charset, document.get("card", {})


def _half(value: torch.Tensor) -> torch.Tensor:
    """Weights and embeddings in 16 bits, which no reading has been seen to notice; the rest as it is."""
    return value.half() if value.is_floating_point() and value.dim() > 1 else value
