"""Draw a corpus as text-line images from Python. Run: python examples/draw_lines.py [lines]."""

import sys
from pathlib import Path

from khmer_ocr import SyntheticImageGenerator
from khmer_ocr.corpus.pipeline import process_corpus
from khmer_ocr.corpus.settings import CorpusConfig

if __name__ == "__main__":
    lines = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    corpus = Path("example/processed")
    process_corpus(CorpusConfig(sample=True, output_dir=corpus, overwrite=True))

    # The same call goes on where a killed one stopped; equal seeds give equal bytes.
    generator = SyntheticImageGenerator(corpus, "example/synthetic", random_seed=7)
    for split, result in generator.generate(max_lines=lines, recipe="basic").items():
        print(f"{split}: {result.samples} lines, rejected: {result.rejected or 'none'}")
    print(f"{generator.get_statistics()['bytes_on_disk']:,} bytes in {generator.output_dir}")
