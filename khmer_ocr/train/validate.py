"""How well a model reads val, in the middle of its training.

Letters: B lines, H rows, W columns, L tokens, T frames.
"""

from collections.abc import Iterable

import numpy as np
import torch
from khmer_ocr_kernels.pad_normalize import to_unit

from khmer_ocr.load.loader import Batch
from khmer_ocr.model.decoding import DecodeMethod
from khmer_ocr.model.decoding.decode import decode
from khmer_ocr.model.seq2seq import Seq2Seq
from khmer_ocr.text.charset import SOS, Charset
from khmer_ocr.text.metrics import Score, score
from khmer_ocr.train.run_log import RunLog

SHOWN = 4


def validate(
    model: Seq2Seq, batches: Iterable[Batch], charset: Charset, device: str, log: RunLog, step: int
) -> dict[DecodeMethod, Score]:
    """Read batches and compare.

    Args:
        model: in eval mode.
        batches: of a loader.
        charset: of the model.
        device: where the model is.
        log: gets the first lines, with the attention of the decoder.
        step: updates so far.

    Returns:
        Scores of "ctc", the best symbol of every slot, and of "greedy", the decoder, on the same lines.
    """
    sums: dict[DecodeMethod, Score] = {"ctc": Score(), "greedy": Score()}
    for number, batch in enumerate(batches):
        images, width_B = to_unit(batch["images"].to(device)), batch["image_lengths"].to(device)
        for method in sums:
            found = [charset.decode(each.ids) for each in decode(model, images, width_B, method)]
            for label, reading in zip(batch["texts"], found, strict=True):
                sums[method] += score(label, reading)
        if number == 0:
            _show(model, batch, images, width_B, found, log, step)
    return sums


def _show(
    model: Seq2Seq,
    batch: Batch,
    images_B1HW: torch.Tensor,
    width_B: torch.Tensor,
    found: list[str],
    log: RunLog,
    step: int,
) -> None:
    for at in range(min(SHOWN, len(found))):
        width = int(width_B[at])
        targets_T = batch["targets"][at, : int(batch["target_lengths"][at])].to(images_B1HW.device)
        tokens_1L = torch.cat([targets_T.new_tensor([SOS]), targets_T])[None]
        weights: list[torch.Tensor] = []
        with torch.inference_mode():
            memory = model.encode(images_B1HW[at : at + 1, ..., :width], width_B[at : at + 1])
            model.decoder(memory, tokens_1L, weights)
        pixels_HW = (images_B1HW[at, 0, :, :width] * 255).byte().cpu().numpy()
        attention_LT = np.asarray(weights[0][0].float().cpu())
        log.sample(step, at, pixels_HW, attention_LT, f"expected {batch['texts'][at]}  \ngot {found[at]}")
