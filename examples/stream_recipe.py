"""Degrade batches while training, anew in each epoch. Run: python examples/stream_recipe.py [recipe]."""

import sys
from pathlib import Path

from khmer_ocr.augment.batch_augmenter import BatchAugmenter
from khmer_ocr.augment.recipe import load_recipe
from khmer_ocr.load.loader import LoadConfig, open_loader
from khmer_ocr.text.charset import Charset

if __name__ == "__main__":
    augment = BatchAugmenter(load_recipe(sys.argv[1] if len(sys.argv) > 1 else "scan", "mixed"), seed=7)
    settings = LoadConfig(batch_size=16, dtype="uint8", progress=False)
    loader = open_loader(Path("example/synthetic"), "train", settings, Charset.default())
    for epoch in range(2):
        for batch in loader.epoch(epoch):
            # A pure function of seed, epoch and the line's number in the split, whatever batch it is in.
            images, widths = augment(batch["images"], batch["image_lengths"], batch["index"], epoch)
            print(
                f"epoch {epoch}: {tuple(batch['images'].shape)} to {tuple(images.shape)}, {int(widths.sum())} columns"
            )
