"""Load what draw_lines.py drew as training batches. Run: python examples/load_batches.py."""

from khmer_ocr import ConfigManager, create_synthetic_dataloaders

if __name__ == "__main__":
    charset = ConfigManager().vocab
    train, val, _ = create_synthetic_dataloaders(batch_size=16, num_workers=0, synthetic_dir="example/synthetic")
    for batch in train:
        images, lengths = batch["images"], batch["image_lengths"]  # (B, 1, H, W) padded with background; widths in px
        share = float(lengths.sum()) / (len(lengths) * images.shape[-1])
        print(f"{tuple(images.shape)} {images.dtype}, {share:.0%} of the columns are lines")
    ids = batch["targets"][0, : batch["target_lengths"][0]]
    print(charset.decode(ids.tolist()), "=", batch["texts"][0])

    # Where to go on, at any batch: load_state_dict of a new loader gives the identical rest.
    print(train.state_dict(), "of", len(train), "and", len(val), "batches")
