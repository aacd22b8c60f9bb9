"""Measuring fonts, hostile ones included: the parent lives, the font at fault is named, the others are measured."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fontTools.ttLib import TTFont

from khmer_ocr import rng
from khmer_ocr.errors import KhmerOcrError, OutputError
from khmer_ocr.fonts.discovery import FontFace, find_faces
from khmer_ocr.io import worker_process
from khmer_ocr.preview.font_card import report_card
from khmer_ocr.render import measure, measure_worker, measured_faces
from khmer_ocr.render.compositor import LineRenderer
from khmer_ocr.render.face_metrics import FaceMetrics, from_json
from khmer_ocr.render.measured_faces import measure_all, quarantine, release
from khmer_ocr.render.planner import REASONS
from khmer_ocr.render.segments import SCRIPT_RUN, SYLLABLE, WORD
from khmer_ocr.render.shaping import EM16, Shaper


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("KHMER_OCR_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "metrics"


@pytest.fixture(scope="module")
def noto(embedded: list[FontFace]) -> FontFace:
    return next(face for face in embedded if face.style == "Regular")


@pytest.fixture(scope="module")
def static(embedded: list[FontFace], tmp_path_factory) -> FontFace:
    """A small static font of a few Khmer letters, quick to measure."""
    return make_static(embedded[0].files[0], tmp_path_factory.mktemp("static") / "Static.ttf")


def make_static(source: Path, path: Path) -> FontFace:
    font = TTFont(source)
    for tag in ("fvar", "gvar", "avar", "HVAR", "MVAR", "STAT"):
        if tag in font:
            del font[tag]
    font.save(path)
    return find_faces([path])[0]


def test_what_is_measured_is_plausible(faces, metrics):
    for face in faces:
        m = metrics[face.name]
        assert not m.fatal
        assert 0.7 * EM16 < m.ascent_em16 < 2 * EM16 and 0.2 * EM16 < m.descent_em16 < 1.6 * EM16, face.name
        assert 0.3 * EM16 < m.ka_height_em16 < 1.3 * EM16
        assert 0.01 * EM16 < m.stroke_em16 < 0.35 * EM16
        assert m.slack_em16 == 0
        assert m.unit == (SYLLABLE if m.inexact[0] == 0 else WORD if m.inexact[1] == 0 else SCRIPT_RUN)


def test_bold_is_bolder_and_condensed_no_lower(metrics):
    weights = [metrics[f"NotoSansKhmer-{style}"].stroke_em16 for style in ("Thin", "Light", "Regular", "Bold", "Black")]
    assert weights == sorted(weights) and weights[0] < weights[-1] / 3
    assert metrics["KhmerOSfreehand"].unit == metrics["KhmerOSfasthand"].unit == WORD
    assert (
        metrics["Busra-R"].unit == metrics["Mondulkiri-R"].unit == metrics["NotoSansKhmer-Regular"].unit == SCRIPT_RUN
    )
    assert metrics["KhmerOS"].unit == metrics["Battambang-Regular"].unit == SYLLABLE


def test_known_faults_are_found(metrics):
    assert metrics["OdorMeanChey-Regular"].malformed == "0"
    assert set("Ax") <= set(metrics["Khmer-Regular"].missing)
    assert any("ថ្" in fault for fault in metrics["Battambang-Regular"].faults)
    assert metrics["KhmerOS"].missing == ""


def test_measured_once_and_kept(static, cache, monkeypatch):
    first = measure_all([static], progress=False)
    assert list(first) == ["Static"] and not first["Static"].fatal
    (file,) = cache.glob("*.json")
    monkeypatch.setattr(
        measured_faces, "measure_in_children", lambda faces: iter(()) if not faces else pytest.fail("measured again")
    )
    assert measure_all([static], progress=False) == first
    assert from_json(json.loads(file.read_text(encoding="utf-8"))["metrics"]) == first["Static"]


def test_in_a_child_as_in_this_process(static, cache):
    assert measure_all([static], progress=False)["Static"] == measure.measure(static)


def test_a_damaged_measurement_is_made_anew(static, cache, caplog, monkeypatch):
    good, made = FaceMetrics(ascent_em16=7), FaceMetrics(ascent_em16=8)
    measured_faces._write_cached(measured_faces._cache_file(static), good)
    assert measure_all([static], progress=False)["Static"] == good
    (file,) = cache.glob("*.json")
    monkeypatch.setattr(measured_faces, "measure_in_children", lambda faces: iter([(face, made) for face in faces]))
    for content in ("", "{", "[]", "null", '{"no_such_key": 1}', "\x00\xff"):
        file.write_text(content, encoding="latin-1")
        caplog.clear()
        assert measure_all([static], progress=False)["Static"] == made
        assert "damaged" in caplog.text
    assert measure_all([static], progress=False)["Static"] == made


def test_every_changed_byte_of_a_measurement_is_noticed(static, cache, caplog, monkeypatch):
    good = FaceMetrics(ascent_em16=70_000, inexact=(0.25, 0.0), missing="A é", faults=("has no glyph for A é",))
    made = FaceMetrics(ascent_em16=8)
    measured_faces._write_cached(measured_faces._cache_file(static), good)
    (file,) = cache.glob("*.json")
    content = file.read_bytes()
    assert measure_all([static], progress=False)["Static"] == good
    monkeypatch.setattr(measured_faces, "measure_in_children", lambda faces: iter([(face, made) for face in faces]))
    for at in range(len(content)):
        damaged = bytearray(content)
        damaged[at] ^= 1 << at % 8
        file.write_bytes(damaged)
        caplog.clear()
        found = measure_all([static], progress=False)["Static"]
        # What is read is what was measured, or it is measured anew and said in one line: never anything else.
        assert found == made and caplog.text.count("damaged") == 1, bytes(damaged[max(at - 9, 0) : at + 9])


def test_a_measurement_under_another_name_is_noticed(static, cache, caplog, monkeypatch):
    other = replace(static, name="Other", sha256="f" * 64)
    measured_faces._write_cached(measured_faces._cache_file(static), FaceMetrics(ascent_em16=7))
    shutil.copy(measured_faces._cache_file(static), measured_faces._cache_file(other))
    monkeypatch.setattr(
        measured_faces, "measure_in_children", lambda faces: iter([(face, FaceMetrics()) for face in faces])
    )
    assert measure_all([other], progress=False)["Other"] == FaceMetrics()
    assert "do not match their checksum" in caplog.text


def test_other_content_is_another_measurement(static, cache):
    assert measured_faces._cache_file(static) != measured_faces._cache_file(replace(static, sha256="0" * 64))


def test_quarantined_by_content(static, cache):
    quarantine(static, "it killed a worker")
    assert measure_all([static], progress=False)["Static"].fatal == "it killed a worker"


def test_a_cache_that_cannot_be_written_is_an_error_that_says_what_to_do(static, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("KHMER_OCR_CACHE", str(tmp_path / "file"))
    with pytest.raises(OutputError, match=r"file/metrics can't be written: .*KHMER_OCR_CACHE.*Measurements"):
        measure_all([static], progress=False)
    assert children_of(os.getpid()) == []


def children_of(parent: int) -> list[int]:
    """Probe processes that this test run started."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            ppid = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            command = (folder / "cmdline").read_bytes()
        except OSError:
            continue  # it ended meanwhile
        if ppid == parent and b"khmer_ocr.render.measure_worker" in command:
            found.append(int(folder.name))
    return found


CRASHES = """
import os, resource, signal, sys
from pathlib import Path
from khmer_ocr.render import measure, measure_worker
from khmer_ocr.render.face_metrics import FaceMetrics

def measured(face):
    # The name says what becomes of the process: Once.SIGSEGV dies so the first time only.
    *once, what = face.name.split(".")
    trace = Path(TRACE, face.name)
    with trace.open("a") as file:
        file.write(os.environ.get("NUMBA_CACHE_DIR", "-") + "\\n")
    if what == "Good" or (once and len(trace.read_text().split()) > 1):
        return FaceMetrics(ascent_em16=7)
    if what == "MemoryError":
        raise MemoryError("no room")
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.kill(os.getpid(), signal.Signals[what])
    signal.pause()

measure.measure = measured
measure_worker.main()
"""


@pytest.fixture
def crashing(static, cache, tmp_path, monkeypatch):
    """Measures faces whose names say how the child that measures them ends; gives metrics and tries by name."""
    script = tmp_path / "crashes.py"
    script.write_text(CRASHES.replace("TRACE", repr(str(tmp_path))))
    monkeypatch.setattr(worker_process, "child_python", lambda module: [sys.executable, "-P", str(script)])
    monkeypatch.setattr(measure_worker, "_FACES_PER_CHILD", 99)

    def measure_named(*names: str):
        faces = [replace(static, name=name, sha256=f"{n:02d}" * 32) for n, name in enumerate(names)]
        found = measure_all(faces, progress=False)
        tries = {name: (tmp_path / name).read_text().split() for name in names if (tmp_path / name).exists()}
        return faces, found, tries

    return measure_named


def test_a_font_is_blamed_for_its_own_crash_and_can_be_tried_again(crashing, cache, caplog):
    names = ["Good", "SIGSEGV", "SIGABRT", "Other.Good"]
    faces, found, tries = crashing(*names)
    assert [bool(found[name].fatal) for name in names] == [False, True, True, False]
    assert [len(tries[name]) for name in names] == [1, 2, 2, 1]
    # The second time with kernels compiled anew, for a damaged one crashes too.
    assert tries["SIGSEGV"][0] == "-" != tries["SIGSEGV"][1] and not Path(tries["SIGSEGV"][1]).exists()
    assert "SIGSEGV" in found["SIGSEGV"].fatal and "fonts check --retry" in found["SIGSEGV"].fatal
    assert "font SIGABRT crashed the process that measured it, twice" in caplog.text
    assert len(list(cache.glob("*.json"))) == 4
    assert crashing(*names)[1] == found and len((cache.parents[1] / "SIGSEGV").read_text().split()) == 2
    assert [face.name for face in release(faces)] == ["SIGSEGV", "SIGABRT"]
    crashing(*names)
    assert len((cache.parents[1] / "SIGSEGV").read_text().split()) == 4


def test_a_font_is_not_blamed_for_what_came_from_outside_or_from_us(crashing, cache):
    names = ["SIGTERM", "SIGKILL", "SIGXCPU", "MemoryError"]
    _, found, tries = crashing(*names)
    for name in names:
        assert "could not be measured" in found[name].fatal and name in found[name].fatal
        assert len(tries[name]) == 2 and "retry" not in found[name].fatal
    assert list(cache.glob("*.json")) == []


def test_a_crash_that_does_not_come_again_is_nobody_s(crashing, cache, caplog):
    _, found, tries = crashing("Once.SIGSEGV", "Once.SIGKILL", "Good")
    assert not any(metrics.fatal for metrics in found.values())
    assert [len(tries[name]) for name in found] == [2, 2, 1] and caplog.text.count("tried again") == 2


HOSTILE = "import pathlib, os\npathlib.Path(r'{marker}').touch()\nraise SystemExit(3)\n"


def test_children_run_nothing_of_the_current_folder(static, cache, tmp_path):
    hostile, marker = tmp_path / "hostile", tmp_path / "owned"
    hostile.mkdir()
    for name in ("json", "numpy", "resource", "selectors", "logging", "uharfbuzz", "khmer_ocr", "khmer_ocr_kernels"):
        (hostile / f"{name}.py").write_text(HOSTILE.format(marker=marker))
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    (corpus / "train.txt").write_text("ភាសាខ្មែរ\n" * 3, encoding="utf-8")
    generate = ("generate", "--corpus-dir", corpus, "--output-dir", tmp_path / "out", "--splits", "train", "--workers")
    for arguments in (
        ("fonts", "check", static.files[0]),
        (*generate, "2", "--fonts", static.files[0], "--no-augment"),
    ):
        command = [sys.executable, "-P", "-m", "khmer_ocr", *map(str, arguments)]
        done = subprocess.run(command, cwd=hostile, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert not marker.exists()
    assert len(list(cache.glob("*.json"))) == 1 and len(list((tmp_path / "out/train/images").iterdir())) == 3


def test_a_child_that_hangs_is_stopped(static, cache, monkeypatch, tmp_path):
    # A named pipe instead of a font: opening it blocks for ever.
    pipe = tmp_path / "Waits.ttf"
    os.mkfifo(pipe)
    waits = replace(static, name="Waits", files=(pipe,), sha256="1" * 64)
    monkeypatch.setattr(measure_worker, "TIMEOUT_S", 8.0)
    monkeypatch.setattr(measure_worker, "_FACES_PER_CHILD", 2)
    found = measure_all([waits, static], progress=False)
    assert "took over 8 s" in found["Waits"].fatal
    assert not found["Static"].fatal


def test_what_a_child_says_last_is_kept(static, cache, tmp_path):
    gone = replace(static, name="Gone", files=(tmp_path / "Gone.ttf",), sha256="2" * 64)
    found = measure_all([gone, static], progress=False)
    assert "Gone.ttf" in found["Gone"].fatal
    assert not found["Static"].fatal


def test_nothing_is_started_where_all_is_known(cache, monkeypatch):
    monkeypatch.setattr(subprocess, "Popen", lambda *args, **kwargs: pytest.fail("a child was started"))
    assert measure_all([], progress=False) == {}


def test_children_are_stopped_when_the_parent_is_interrupted(embedded, cache, monkeypatch):
    measuring = measure_worker.measure_in_children(embedded[:4])
    monkeypatch.setattr(measure_worker, "_FACES_PER_CHILD", 2)
    next(measuring)
    measuring.close()
    assert children_of(os.getpid()) == []


def test_the_child_has_a_limit_of_memory(static, monkeypatch):
    code = (
        "import resource; from khmer_ocr.render import measure, measure_worker; "
        "from khmer_ocr.render.face_metrics import FaceMetrics; "
        "measure.measure = lambda face: FaceMetrics(fatal=str(resource.getrlimit(resource.RLIMIT_AS))); "
        "measure_worker.main()"
    )
    monkeypatch.setattr(worker_process, "child_python", lambda module: [sys.executable, "-c", code])
    ((_, metrics),) = measure_worker.measure_in_children([static])
    assert metrics.fatal == str((measure_worker.MEMORY_BYTES, measure_worker.MEMORY_BYTES))


def flipped(content: bytes, seed: int) -> bytes:
    """A font with 60 bytes changed, most of them in its tables of contents and shaping."""
    damaged = bytearray(content)
    random = np.random.default_rng(seed)
    for at in random.integers(0, len(content), 60).tolist():
        damaged[at] ^= int(random.integers(1, 256))
    return bytes(damaged)


def test_flipped_bytes_never_harm_the_parent(embedded, cache, tmp_path, real_lines):
    # A static copy: one face a file, so that a dozen files take a dozen measurements.
    good = make_static(embedded[0].files[0], tmp_path / "Good.ttf").files[0].read_bytes()
    folder = tmp_path / "fonts"
    folder.mkdir()
    for seed in range(12):
        (folder / f"Flipped{seed}.ttf").write_bytes(flipped(good, seed))
    shutil.copy(tmp_path / "Good.ttf", folder)
    found = find_faces([folder])
    measured = measure_all(found, progress=False)
    assert set(measured) == {face.name for face in found}
    assert not measured["Good"].fatal
    usable = [face for face in found if not measured[face.name].fatal]
    for face in usable:
        # What passed must draw, or say why not in a project's error: never anything else.
        renderer = LineRenderer([face], measured)
        lines = real_lines[:40]
        lines = [line for line, reason in zip(lines, renderer.planner.rejections(lines), strict=True) if not reason]
        try:
            renderer.draw_at(lines, np.zeros(len(lines), np.int32), np.full(len(lines), 1280, np.int64))
        except KhmerOcrError as error:
            assert face.name in str(error)


def test_letters_without_ink_are_fatal(noto, cache, tmp_path):
    font = TTFont(noto.files[0])
    for tag in ("fvar", "gvar", "avar", "HVAR", "MVAR", "STAT"):
        if tag in font:
            del font[tag]
    glyphs = font["glyf"]
    for name in font.getGlyphOrder():
        glyphs[name] = type(glyphs[name])()
    font.save(tmp_path / "Blank.ttf")
    (face,) = find_faces([tmp_path / "Blank.ttf"])
    assert "no ink" in measure_all([face], progress=False)["Blank"].fatal


def with_advance(face: FontFace, path: Path, advances: dict[str, int]) -> FontFace:
    """A static copy of a face in which some characters move the pen by so many font units."""
    make_static(face.files[0], path)
    font = TTFont(path)
    for character, advance in advances.items():
        glyph = font.getBestCmap()[ord(character)]
        font["hmtx"][glyph] = (advance, font["hmtx"][glyph][1])
    font.save(path)
    return find_faces([path])[0]


def test_a_run_begins_with_whatever_its_faces_can_draw(static, noto, cache, tmp_path):
    """A worker draws a line before its first task; no face here can draw the letter that comes first."""
    from khmer_ocr.generate.chunk_renderer import ChunkRenderer, RenderJob
    from khmer_ocr.render.settings import RenderConfig

    for number, advances in enumerate(
        ({"ក": 0}, dict.fromkeys(map(chr, (*range(0x1780, 0x17A3), *range(0x17E0, 0x17EA))), 0))
    ):
        face = with_advance(noto, tmp_path / f"Face{number}.ttf", advances)
        metrics = measure_all([face], progress=False)
        renderer = ChunkRenderer(RenderJob((face,), metrics, RenderConfig(), str(tmp_path), "files", 42, None))
        assert REASONS[renderer.renderer.planner.rejections(["ក"])[0]] == "missing_glyph"
        renderer.warm_up()
        renderer.close()


def test_a_face_is_judged_by_its_advances(static, noto, cache, tmp_path):
    damaged = [
        with_advance(noto, tmp_path / "Space.ttf", {" ": 0}),
        with_advance(noto, tmp_path / "Letter.ttf", {"ក": 0}),
        with_advance(noto, tmp_path / "Narrow.ttf", {"ក": 60, "។": 5}),
    ]
    measured = measure_all([static, *damaged], progress=False)
    assert [measured[face.name].cramped for face in [static, *damaged]] == ["", " ", "ក", "ក។"]
    assert "gives the space too little room" in " ".join(measured["Space"].faults)
    assert " " in measured["Space"].missing
    card = report_card([static, *damaged], progress=False)
    assert "Space: gives the space too little room (advance)" in card and "Letter: gives ក too little room" in card
    lines = ["ភាសា ខ្មែរ", "ការងារ", "ខ្មែរ", "ស្រុក", "ហ្ក", "ល។"]
    refused = {
        face.name: [
            text
            for text, number in zip(lines, LineRenderer([face], measured).planner.rejections(lines), strict=True)
            if REASONS[number] == "missing_glyph"
        ]
        for face in [static, *damaged]
    }
    # A letter that hangs below another needs no room of its own.
    assert refused["Static"] == [] and refused["Space"] == ["ភាសា ខ្មែរ"]
    assert refused["Letter"][:2] == ["ការងារ", "ស្រុក"] and "ល។" in refused["Narrow"]
    # With a good face beside it the lines go there.
    plan = LineRenderer([static, damaged[0]], measured).plan(
        ["ភាសា ខ្មែរ"] * 200, np.arange(200, dtype=np.uint64), rng.key(1, "train", "plan")
    )
    assert set(plan.face_B.tolist()) == {0}


def test_a_character_outside_the_probe_without_room_is_refused(static, noto, cache, tmp_path):
    face = with_advance(noto, tmp_path / "Rare.ttf", {"ឩ": 0})
    planner = LineRenderer([face], {face.name: measure_all([static], progress=False)["Static"]}).planner
    assert [REASONS[n] for n in planner.rejections(["ឩ", "ឧ"])] == ["missing_glyph", ""]


def test_no_installed_face_is_cramped(metrics):
    assert {name: m.cramped for name, m in metrics.items() if m.cramped} == {}


def test_every_unit_is_exact_on_the_probe_itself(few_faces, metrics):
    # `unit` follows from the probe; boundary lines are what tells the smaller units from the larger.
    _, cut = measure._probe()
    for face in few_faces:
        shaper = Shaper(face)
        for run in list(cut)[::29]:
            whole = measure.placed(shaper, shaper.shape_with_fallback(run))
            parts = [run] if metrics[face.name].unit == SCRIPT_RUN else cut[run][metrics[face.name].unit]
            assert (
                measure.concatenated(measure.placed(shaper, shaper.shape_with_fallback(part)) for part in parts)
                == whole
            )


def test_the_bar_is_shown_for_many_faces_only(static, cache, capfd, monkeypatch):
    monkeypatch.setattr(
        measured_faces, "measure_in_children", lambda faces: iter([(face, FaceMetrics()) for face in faces])
    )
    many = [replace(static, name=f"Face{n}", sha256=str(n) * 64) for n in range(9)]
    measure_all(many[:2])
    measure_all(many, progress=False)
    assert "measuring" not in capfd.readouterr().err
    measure_all([replace(face, sha256="a" + face.sha256) for face in many])
    assert "measuring fonts" in capfd.readouterr().err
