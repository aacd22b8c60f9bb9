"""Models as ONNX: one graph from lines to frames and CTC, one that scores texts against frames; checked against torch.

Letters: B lines, W columns, T frames, D width of a frame, S slots of CTC, L tokens, V token ids.
"""

import json
import logging
import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from khmer_ocr_kernels.arrays import F32
from torch import Tensor, nn

from khmer_ocr.errors import ConfigError, ModelError, require
from khmer_ocr.io.atomic import write_output
from khmer_ocr.model.decoder import Memory
from khmer_ocr.model.decoding.decode import decode
from khmer_ocr.model.seq2seq import BLANK, Seq2Seq
from khmer_ocr.model.weights import LoadedModel
from khmer_ocr.recognize.image_input import ImageSource, read_grey
from khmer_ocr.recognize.prepare import prepare
from khmer_ocr.text.charset import SPECIALS

DECODER_SUFFIX = ".decoder.onnx"
LARGEST_DIFFERENCE = 1e-3
"""Of a log-probability between torch and ONNX Runtime; float32 sums in another order differ by 1e-5."""
_OPSET = 20
_CHECKED_BXW = ((1, 1), (1, 37), (3, 640), (2, 2048))


class _Encoder(nn.Module):
    def __init__(self, model: Seq2Seq) -> None:
        super().__init__()
        self.model = model

    def forward(self, images_B1HW: Tensor, width_B: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        memory = self.model.encode(images_B1HW, width_B)
        return memory.frames_BTD, memory.frame_count_B, *self.model.ctc_log_probs(memory)


class _Decoder(nn.Module):
    def __init__(self, model: Seq2Seq) -> None:
        super().__init__()
        self.model = model

    def forward(self, frames_BTD: Tensor, frame_count_B: Tensor, tokens_BL: Tensor) -> Tensor:
        return self.model.decoder_log_probs(Memory(frames_BTD, frame_count_B), tokens_BL)


def export_onnx(loaded: LoadedModel, output: Path) -> tuple[Path, Path, float]:
    """Write a model as two ONNX graphs, after comparing them with torch on lines of many sizes.

    `output`: images float32 (B, 1, 32, W) in 0..1, background 1 and dark ink, and width int64 (B,) in px, to frames
    (B, T, D), frame_count (B,), ctc_log_probs (B, S, V) and slot_count (B,). The other: frames, frame_count and tokens
    int64 (B, L), `<sos>` first, to log_probs (B, L, V) of the token after each. Characters, special tokens, height and
    CTC's blank are in the metadata of both.

    Args:
        loaded: the model.
        output: ends in .onnx, or has no suffix and gets that; the second graph goes beside it, to `.decoder.onnx`.

    Returns:
        Both files, and the largest difference of a log-probability to torch.

    Raises:
        ConfigError: the name ends in another suffix, onnx or onnxruntime are not installed, or the preset has GRUs.
        ModelError: the graphs do not say what torch says.
        OutputError: a file can't be written.
    """
    if not output.suffix:
        output = output.with_suffix(".onnx")
    if output.suffix != ".onnx":
        raise ConfigError(f"{output}: expected a name that ends in .onnx, or one without a suffix")
    config = loaded.model.config
    if config.encoder != "conv" or config.decoder != "transformer":
        raise ConfigError(
            f"The preset {config.preset} is made of GRUs over lines packed by width, which ONNX can't say. Export "
            "compact or base."
        )
    require("Exporting", "onnx", "onnxruntime", "onnxscript")
    facts = {
        "preset": config.preset,
        "height_px": str(config.height_px),
        "ctc_blank": str(BLANK),
        "special_tokens": json.dumps(SPECIALS),
        "characters": json.dumps(loaded.charset.characters),
    }
    decoder_output = output.with_name(output.stem + DECODER_SUFFIX)
    example = next(_examples(loaded.model, [(3, 203)]))
    encoder, decoder = _Encoder(loaded.model).eval(), _Decoder(loaded.model).eval()
    graphs = {
        output: _graph(
            encoder,
            example[:2],
            {"images": {0: "lines", 3: "columns"}, "width": {0: "lines"}},
            ["frames", "frame_count", "ctc_log_probs", "slot_count"],
            facts,
        ),
        decoder_output: _graph(
            decoder,
            (*encoder(*example[:2])[:2], example[2]),
            {
                "frames": {0: "lines", 1: "frame"},
                "frame_count": {0: "lines"},
                "tokens": {0: "lines", 1: "token"},
            },
            ["log_probs"],
            facts,
        ),
    }
    difference = _difference(encoder, decoder, *graphs.values())
    if not difference <= LARGEST_DIFFERENCE:
        raise ModelError(
            f"The exported graphs differ from torch by {difference:.2g} in a log-probability; expected "
            f"{LARGEST_DIFFERENCE} at most. Nothing was written; update torch and onnxruntime and try again."
        )
    for path, graph in graphs.items():
        write_output(path, graph)
    return output, decoder_output, difference


@torch.no_grad()
def _graph(
    module: nn.Module, inputs: tuple[Tensor, ...], dynamic: dict[str, Any], outputs: list[str], facts: dict[str, str]
) -> bytes:
    """Serialise a module with sizes left open."""
    talkative = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [log.level for log in talkative]
    for log in talkative:
        log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            # Of deprecations between torch and onnxscript, on which no result depends.
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                module,
                inputs,
                dynamo=True,
                input_names=list(dynamic),
                output_names=outputs,
                dynamic_shapes=tuple(dynamic.values()),
                opset_version=_OPSET,
                external_data=False,
                verbose=False,
            )
    finally:
        for log, level in zip(talkative, levels, strict=True):
            log.setLevel(level)
    assert program is not None
    program.model.metadata_props.update(facts)
    content: bytes = program.model_proto.SerializeToString()
    return content


def _examples(model: Seq2Seq, sizes_BxW: Sequence[tuple[int, int]]) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Made-up lines with their widths and texts: not random, and not regular either."""
    for lines, columns in sizes_BxW:
        height = model.config.height_px
        place = torch.arange(lines * height * columns, dtype=torch.float64)
        images_B1HW = torch.sin(place**1.5).abs().float().view(lines, 1, height, columns)
        width_B = torch.tensor([max(1, columns * (lines - line) // lines) for line in range(lines)])
        tokens_BL = torch.arange(lines * (columns // 16 + 1)).view(lines, -1) % (model.vocabulary - 1) + 1
        yield images_B1HW, width_B, tokens_BL


@torch.inference_mode()
def _difference(encoder: _Encoder, decoder: _Decoder, encoder_graph: bytes, decoder_graph: bytes) -> float:
    """Largest difference of a log-probability inside lines, over several sizes."""
    run_encoder, run_decoder = session(encoder_graph), session(decoder_graph)
    largest = 0.0
    for images_B1HW, width_B, tokens_BL in _examples(encoder.model, _CHECKED_BXW):
        frames, frame_count, log_probs, slot_count = encoder(images_B1HW, width_B)
        seen = run_encoder.run(None, {"images": images_B1HW.numpy(), "width": width_B.numpy()})
        if not (seen[1] == frame_count.numpy()).all() or not (seen[3] == slot_count.numpy()).all():
            return float("inf")
        inside_BS = np.arange(log_probs.shape[1]) < slot_count.numpy()[:, None]
        largest = max(largest, float(np.abs(seen[2] - log_probs.numpy())[inside_BS].max()))
        expected = decoder(frames, frame_count, tokens_BL).numpy()
        fed = {"frames": seen[0], "frame_count": seen[1], "tokens": tokens_BL.numpy()}
        largest = max(largest, float(np.abs(run_decoder.run(None, fed)[0] - expected).max()))
    return largest


def session(model: bytes | str) -> Any:
    """Open a graph, as bytes or a file, in ONNX Runtime on the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def best_path(log_prob_SV: F32, blank: int = BLANK) -> list[int]:
    """Token ids of CTC's best symbol in every slot, repeats and blanks out: all that a graph needs to be read with."""
    token_S = log_prob_SV.argmax(1)
    kept_S = np.append(True, token_S[1:] != token_S[:-1]) & (token_S != blank)
    ids: list[int] = token_S[kept_S].tolist()
    return ids


def texts_apart(loaded: LoadedModel, encoder: Path, images: Iterable[ImageSource]) -> int:
    """Count the lines that a written graph reads otherwise than torch, by CTC.

    Args:
        loaded: the model.
        encoder: its first graph.
        images: lines; see `Recognizer`.
    """
    graph, apart = session(str(encoder)), 0
    for image in images:
        pixels_HW = prepare(read_grey(image), loaded.model.config.height_px).pixels_HW
        images_B1HW = (pixels_HW.astype(np.float32) / 255)[None, None]
        width_B = np.array([pixels_HW.shape[1]], np.int64)
        log_prob_BSV = graph.run(["ctc_log_probs"], {"images": images_B1HW, "width": width_B})[0]
        expected = decode(loaded.model, torch.from_numpy(images_B1HW), torch.from_numpy(width_B), "ctc")[0].ids
        apart += best_path(log_prob_BSV[0]) != expected
    return apart
