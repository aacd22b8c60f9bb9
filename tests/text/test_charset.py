import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from khmer_ocr.corpus.synthesis.syllable_lines import synthesize_lines
from khmer_ocr.errors import ConfigError
from khmer_ocr.samples import sample_lines
from khmer_ocr.text.charset import EOS, PAD, SOS, SPECIALS, UNK, Charset


def test_specials_come_first() -> None:
    assert (PAD, SOS, EOS, UNK) == (0, 1, 2, 3)
    assert SPECIALS == ("<pad>", "<sos>", "<eos>", "<unk>")
    charset = Charset(("ក", "ខ"))
    assert charset.encode("ខកx") == [5, 4, UNK]
    assert len(charset) == 6
    assert "ក" in charset
    assert "x" not in charset


def test_default_holds_what_is_synthesized_and_nothing_that_labels_lack() -> None:
    charset = Charset.default()
    for line in synthesize_lines(700, seed=5):
        assert charset.missing(line) == set()
    assert not {"\u17a3", "\u17a4", "\u17b4", "\u17b5", "\u17d8", "\u200b", "\t", "\u00a0"} & set(charset.characters)
    assert {"\u17d3", "\u17dd", "\u200c", "é", "…", "~", " "} <= set(charset.characters)


def test_default_holds_every_character_of_the_bundled_sample() -> None:
    assert Charset.default().missing("".join(sample_lines())) == set()


@given(st.text(st.sampled_from(Charset.default().characters), max_size=60))
def test_decode_undoes_encode(text: str) -> None:
    charset = Charset.default()
    assert charset.decode(charset.encode(text)) == text


def test_decode_stops_at_eos_and_marks_unknown() -> None:
    charset = Charset(("ក", "ខ"))
    assert charset.decode([SOS, 4, UNK, 5, EOS, 4, 4]) == "ក\ufffdខ"
    assert charset.decode([PAD, 4, PAD, PAD]) == "ក"
    for bad in (6, -1):
        with pytest.raises(ConfigError, match=r"outside 0\.\.5"):
            charset.decode([bad])


def test_from_text_is_ordered_and_independent_of_line_order() -> None:
    assert Charset.from_text(["ខក", "a"]).characters == ("a", "ក", "ខ")
    assert Charset.from_text(["a", "កខ"]) == Charset.from_text(["ខក", "a"])
    with pytest.raises(ConfigError, match="no character"):
        Charset.from_text(["", ""])


def test_missing() -> None:
    assert Charset(("ក",)).missing("កខ?") == {"ខ", "?"}


def test_entries_are_checked() -> None:
    with pytest.raises(ConfigError, match="twice, as entries 0 and 2"):
        Charset(("ក", "ខ", "ក"))
    with pytest.raises(ConfigError, match="entry 1 is 'ab'"):
        Charset(("ក", "ab"))


def test_save_load(tmp_path: Path) -> None:
    path = tmp_path / "charset.json"
    charset = Charset.default()
    charset.save(path)
    loaded = Charset.load(path)
    assert loaded == charset
    assert loaded.fingerprint == charset.fingerprint
    assert [entry.name for entry in tmp_path.iterdir()] == ["charset.json"]
    assert charset.fingerprint != Charset(charset.characters[::-1]).fingerprint


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda d: d.update(characters=d["characters"][::-1]), "edited or damaged"),
        (lambda d: d.update(specials=["<blank>"]), "special tokens"),
        (lambda d: d.pop("characters"), "no list 'characters'"),
        (lambda d: d["characters"].append(7), "one code point"),
    ],
)
def test_load_refuses_a_changed_file(tmp_path: Path, change, says: str) -> None:
    path = tmp_path / "charset.json"
    Charset(("ក", "ខ")).save(path)
    document = json.loads(path.read_text(encoding="utf-8"))
    change(document)
    path.write_text(json.dumps(document), encoding="utf-8")
    with pytest.raises(ConfigError, match=says):
        Charset.load(path)


def test_load_refuses_what_is_no_charset(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not exist"):
        Charset.load(tmp_path / "none.json")
    for body, says in ((b'{"a', "no JSON"), (b"\xff\xfe", "no JSON"), (b"[]", "holds a list")):
        path = tmp_path / "bad.json"
        path.write_bytes(body)
        with pytest.raises(ConfigError, match=says):
            Charset.load(path)
