"""Go on training the shipped weights with your lines. Run: python examples/fine_tune.py [DATA] [steps]."""

import sys
from pathlib import Path

import khmer_ocr
from khmer_ocr import Recognizer
from khmer_ocr.train.loop import train
from khmer_ocr.train.settings import TrainConfig

if __name__ == "__main__":
    data = Path(sys.argv[1] if len(sys.argv) > 1 else "example/synthetic")
    steps = int(sys.argv[2]) if len(sys.argv) > 2 else 200
    settings = TrainConfig(
        synthetic_dir=(data,),
        init=Path(khmer_ocr.__file__).parent / "weights/compact",
        checkpoint_dir=Path("example/checkpoints"),
        log_dir=Path("example/logs"),
        overwrite=True,
        max_steps=steps,
        batch_size=16,
        learning_rate=1e-4,  # a tenth of what training from nothing takes
        warmup_steps=min(20, steps // 4),
        ema_decay=0.99,  # an average over 100 steps
        freeze_norms=True,
        num_workers=0,
        validate_lines=50,
    )
    weights = train(settings)
    image = min((data / "test/images").iterdir())
    print(f"{weights}: {image.name} reads {Recognizer(weights).recognize(image).text}")
