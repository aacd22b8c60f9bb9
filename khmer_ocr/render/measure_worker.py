"""Child processes that measure fonts, both ends: the parent's `measure_in_children` and, as a program, the child.

The child gets faces as JSON on standard input and sends one JSON object a face. A face is blamed only for what it did:
a crash of the child while measuring it, twice, the second time with kernels compiled anew, for a damaged
kernel crashes too. Any other end of a child (killed from outside, out of memory, too late, a fault of ours) is tried
once more, and if it comes again the face is left out of this run and not remembered.
"""

import json
import logging
import os
import resource
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from multiprocessing.connection import wait
from pathlib import Path

from khmer_ocr.errors import FontError
from khmer_ocr.fonts.discovery import FontFace
from khmer_ocr.io.worker_process import DYING_S, OWN_CRASHES, WorkerProcess, end_of, parent_pipe
from khmer_ocr.render.face_metrics import UNMEASURED, FaceMetrics, from_json

log = logging.getLogger(__name__)
TIMEOUT_S = 120.0
"""What a child may take for one face; a whole one takes under a second."""
MEMORY_BYTES = 4 << 30
_FACES_PER_CHILD = 4
_ANSWER_BYTES = 1 << 20
_MODULE = "khmer_ocr.render.measure_worker"


class _Child(WorkerProcess):
    """A child process and the faces it has still to do.

    Args:
        faces: what to measure.
        again: why a child before this one did not get past the first face; its kernels are then compiled anew.
    """

    def __init__(self, faces: Sequence[FontFace], again: str = "") -> None:
        self.faces, self.again = deque(faces), again
        self._kernels = tempfile.TemporaryDirectory(prefix="khmer_ocr-kernels-") if again else None
        environment = {**os.environ, "NUMBA_CACHE_DIR": self._kernels.name} if self._kernels else None
        task = json.dumps([{**asdict(face), "files": [str(file) for file in face.files]} for face in faces])
        super().__init__(_MODULE, task.encode(), environment=environment, keep_stderr=True)
        self.deadline_s = time.monotonic() + TIMEOUT_S
        self.late = False

    def receive(self) -> FaceMetrics | None:
        """The metrics of the first face that is left; None where the child has ended."""
        try:
            metrics = from_json(json.loads(self.pipe.recv_bytes(_ANSWER_BYTES)))
        except (EOFError, OSError):
            return None
        self.deadline_s = time.monotonic() + TIMEOUT_S
        self.again = ""
        return metrics

    def end(self, wait_s: float = 0.0) -> int:
        code = super().end(wait_s)
        if self._kernels:
            self._kernels.cleanup()
        return code


def measure_in_children(faces: Sequence[FontFace]) -> Iterator[tuple[FontFace, FaceMetrics]]:
    """Measure faces in several processes at once, in whatever order they finish.

    Args:
        faces: faces to measure.

    Yields:
        Each face with its metrics; one that killed its process has `fatal`.
    """
    count = min(os.cpu_count() or 1, -(-len(faces) // _FACES_PER_CHILD))
    children: list[_Child] = []
    try:
        children += [_Child(faces[n::count]) for n in range(count)]
        while children:
            wait_s = min(child.deadline_s for child in children) - time.monotonic()
            ready = wait([child.pipe for child in children], max(wait_s, 0.0))
            for child in [child for child in children if child.pipe in ready]:
                metrics = child.receive()
                if metrics is not None:
                    yield child.faces.popleft(), metrics
                    continue
                code = child.end(DYING_S)
                said = f"it took over {TIMEOUT_S:g} s" if child.late else child.last_words or "no message"
                children.remove(child)
                again = f"{end_of(code)}: {said}" if child.faces else ""
                if child.again or child.late:
                    yield child.faces[0], _failed(child.faces.popleft(), code, said)
                    again = ""
                elif again:
                    log.warning("measuring font %s ended (%s); it is tried again", child.faces[0].name, again)
                if child.faces:
                    children.append(_Child(child.faces, again))
            for child in children:
                if child.deadline_s < time.monotonic():
                    child.late = True
                    child.process.kill()
    finally:
        for child in children:
            child.end()


def _failed(face: FontFace, code: int, said: str) -> FaceMetrics:
    own = -code in OWN_CRASHES
    what = "crashed the process that measured it, twice" if own else UNMEASURED
    log.warning("font %s %s (%s: %s); it is left out", face.name, what, end_of(code), said)
    todo = "khmer-ocr fonts check --retry measures it again" if own else "run the same command again"
    return FaceMetrics(fatal=f"it {what} ({end_of(code)}: {said}); {todo}")


def main() -> None:
    """Measure each face and send its metrics as soon as they are known."""
    from khmer_ocr.render.measure import measure

    pipe = parent_pipe()
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    for fields in json.load(sys.stdin):
        variations = tuple((tag, value) for tag, value in fields.pop("variations"))
        files = tuple(Path(file) for file in fields.pop("files"))
        face = FontFace(**fields, files=files, variations=variations)
        try:
            metrics = measure(face)
        except FontError as error:
            metrics = FaceMetrics(fatal=str(error))
        pipe.send_bytes(json.dumps(asdict(metrics)).encode())


if __name__ == "__main__":
    main()
