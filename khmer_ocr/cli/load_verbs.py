"""The verb that packs a data set: cache."""

from khmer_ocr.cli.flags import Folder
from khmer_ocr.errors import DatasetError, SplitNotFoundError, require
from khmer_ocr.load.read_errors import OnError


def cache(
    directory: Folder,
    splits: tuple[str, ...] = (),
    on_error: OnError = "raise",
    overwrite: bool = False,
    workers: int = 0,
    quiet: bool = False,
) -> None:
    """Decode a data set once and pack its pixels beside it, memory-mapped: the fast path for training.

    Args:
        directory: The data set's folder.
        splits: Which splits; default all.
        on_error: What to do about lines that can't be read: raise, or skip up to 1 % of a split.
        overwrite: Pack anew what is packed already.
        workers: Threads that decode; default every core.
        quiet: No progress bar.
    """
    require("cache", "torch")
    from khmer_ocr.dataset import layout
    from khmer_ocr.dataset.index import load_index
    from khmer_ocr.dataset.repair_advice import advice_to_create
    from khmer_ocr.load.cache import PackedCache
    from khmer_ocr.load.cache_builder import build_cache
    from khmer_ocr.load.read_errors import ReadErrorLog

    chosen = splits or [split for split in layout.SPLITS if (directory / split).is_dir()]
    if not chosen:
        raise SplitNotFoundError(f"{directory} holds no split. {advice_to_create(directory)}")
    skip = on_error == "skip"
    for split in chosen:
        lost = dict[str, DatasetError]()
        index = load_index(directory, split, on_fault=lost.__setitem__ if skip else None)
        unread = list(map(str, lost.values()))
        ReadErrorLog(on_error, len(index) + len(lost)).add({-1 - place: said for place, said in enumerate(unread)})
        path = build_cache(index, skip=skip, overwrite=overwrite, progress=not quiet, workers=workers)
        packed = PackedCache.open(index)
        faults = [*unread, *packed.faults.values()]
        left_out = f", {len(faults)} left out" if faults else ""
        print(f"{split}: {len(packed):,} lines{left_out}, {path.stat().st_size / 1e6:,.1f} MB in {path}")
        for message in (*faults, *index.notes):
            print(f"  {message}")
