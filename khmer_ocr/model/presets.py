"""Named shapes of the model; a checkpoint carries its own, so that it can be built again without guessing."""

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Interval

from khmer_ocr.constraints import AtLeast0, AtLeast1, Settings
from khmer_ocr.errors import ConfigError


@dataclass(frozen=True)
class ModelConfig(Settings):
    """What a model is made of.

    Attributes:
        preset: name it goes by.
        height_px: height of the lines it reads.
        encoder: "conv" (convolutions and self-attention) or "crnn" (convolutions and bidirectional GRUs).
        channels: of the convolutional stages, after which height is 32, 16, 8 and 4 and width W, W/2, W/4 and W/4.
        blocks: residual blocks of each stage.
        width: of the frames and of the decoder's states.
        layers: self-attention layers (conv), or bidirectional GRU layers (crnn), over the frames.
        heads: attention heads of the "conv" encoder and the "transformer" decoder.
        expansion: width of a feed-forward layer, in frame widths.
        kernel: frames that the convolution of a self-attention layer sees.
        slots: symbols that CTC may write in one frame of 4 px.
        decoder: "transformer" or "gru" with additive attention.
        decoder_layers: layers of the decoder.
        embedding: width of a token's embedding (gru; a transformer's is `width`).
        dropout: share of values dropped in training.
    """

    preset: str = "compact"
    height_px: int = 32
    encoder: Literal["conv", "crnn"] = "conv"
    channels: tuple[int, ...] = (24, 40, 80, 160)
    blocks: tuple[int, ...] = (0, 1, 2, 1)
    width: int = 192
    layers: AtLeast0 = 3
    heads: AtLeast1 = 6
    expansion: int = 2
    kernel: int = 7
    slots: AtLeast1 = 3
    decoder: Literal["transformer", "gru"] = "transformer"
    decoder_layers: AtLeast1 = 2
    embedding: int = 192
    dropout: Annotated[float, Interval(ge=0, lt=1)] = 0.1

    def __post_init__(self) -> None:
        """Refuse shapes that no model can have."""
        super().__post_init__()
        if self.height_px != 32:
            raise ConfigError(f"height_px is {self.height_px}: models are built for lines of 32 px")
        if self.encoder == "conv" and (len(self.channels) != 4 or len(self.blocks) != 4):
            raise ConfigError(f"channels {self.channels} and blocks {self.blocks}: a conv encoder has four stages")
        if self.width % self.heads:
            raise ConfigError(f"width {self.width} is no multiple of heads {self.heads}; choose another `heads`")


PRESETS = {
    "compact": ModelConfig(),
    "base": ModelConfig(
        preset="base",
        channels=(32, 64, 128, 256),
        blocks=(0, 2, 3, 2),
        width=320,
        layers=5,
        heads=8,
        expansion=2,
        decoder_layers=3,
        embedding=320,
    ),
    # The network that users of published Khmer scripts know: Buoy et al., "Khmer Printed Character Recognition Using
    # Attention-Based Seq2Seq Network", 2022. The CTC head beside it is ours.
    "buoy2022": ModelConfig(
        preset="buoy2022",
        encoder="crnn",
        channels=(64, 128, 256, 256, 512, 512, 512),
        blocks=(),
        width=512,
        layers=2,
        heads=1,
        decoder="gru",
        decoder_layers=1,
        embedding=256,
    ),
}


def preset(name: str) -> ModelConfig:
    """Look a preset up; raises `ConfigError` for a name that is none."""
    if name not in PRESETS:
        raise ConfigError(f"preset {name!r} is unknown; there are {', '.join(PRESETS)}")
    return PRESETS[name]
