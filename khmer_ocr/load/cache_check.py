"""Packed caches where they lie in a data set, compared with what the data set records."""

from collections.abc import Iterator
from pathlib import Path

from khmer_ocr.dataset.index import load_index
from khmer_ocr.dataset.reader import SplitIndex
from khmer_ocr.dataset.split_checks import Problem
from khmer_ocr.dataset.verify import VerifyReport
from khmer_ocr.errors import DatasetError
from khmer_ocr.load.cache import NAME, SUFFIX, PackedCache, cache_file, tree_key


def check_caches(report: VerifyReport) -> None:
    """Look at the packed caches of a data set that was verified, and add what is wrong or worth knowing to its report.

    Args:
        report: from `verify`; only splits that it could open are looked at.
    """
    for split in report.checked:
        found = sorted((report.root / split).glob(f"{NAME}*{SUFFIX}"))
        if not found:
            continue
        try:
            index = load_index(report.root, split)
        except DatasetError:
            report.notes.append(f"{split}: the packed cache is not compared, since the metadata are damaged.")
            continue
        current = cache_file(index, tree_key(index))
        for path in found:
            if path == current:
                report.problems += _problems(index, path)
            else:
                again = f"khmer-ocr cache {report.root} replaces it"
                report.notes.append(f"{path} holds pixels of earlier contents and is not used; {again}.")


def _problems(index: SplitIndex, path: Path) -> Iterator[Problem]:
    again = f"Run: khmer-ocr cache {index.root} --splits {index.split} --overwrite"
    try:
        cache = PackedCache.open(index)
    except DatasetError as fault:
        why = str(fault).removeprefix(f"{path} ").removesuffix(f". {again}")
        yield Problem(index.split, None, path.name, f"{why}. {again}")
        return
    if damaged := cache.damaged():
        names = ", ".join(index.filename(i) for i in damaged[:3])
        more = f" and {len(damaged) - 3:,} more" if len(damaged) > 3 else ""
        yield Problem(index.split, None, path.name, f"has other pixels than recorded of {names}{more}. {again}")
