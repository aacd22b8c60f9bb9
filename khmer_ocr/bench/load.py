"""How fast a data set becomes batches here."""

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from khmer_ocr.bench.settings import LoadBenchConfig
from khmer_ocr.errors import ConfigError
from khmer_ocr.load.loader import LineLoader, LoadConfig, choose_engine, open_loader
from khmer_ocr.text.charset import Charset


def measure_loading(root: Path, measure: LoadBenchConfig, config: LoadConfig) -> Iterator[str]:
    """Load some epochs with each engine, in turn.

    Args:
        root: the data set's folder.
        measure: which split and engines, and how often.
        config: how it is loaded.

    Yields:
        A sentence on each engine and each epoch.
    """
    opened = list[LineLoader]()
    for engine in measure.engines:
        of_engine = replace(config, engine=engine)
        try:
            choose_engine(of_engine)
        except ConfigError as fault:
            if len(measure.engines) == 1:
                raise
            yield f"{engine}: {fault}"
            continue
        begin = time.perf_counter()
        opened.append(open_loader(root, measure.split, of_engine, Charset.default()))
        lines, batches, elapsed_s = len(opened[-1].lines), opened[-1].batch_count(0), time.perf_counter() - begin
        yield f"{engine}: opened {lines:,} lines in {elapsed_s:.2f} s, {batches:,} batches an epoch"
    for epoch in range(measure.epochs + 1):
        for loader in opened:
            loader.statistics.reset()
            for _ in loader.epoch(epoch):
                if measure.step_ms:
                    time.sleep(measure.step_ms / 1000)
            yield f"{loader.engine}, epoch {epoch}{' (warms up)' if not epoch else ''}: {loader.statistics}"
    for loader in opened:
        loader.close()
