"""Headers read within bounds: hostile, huge and odd ones."""

from __future__ import annotations

import struct
import tracemalloc
import zlib
from pathlib import Path

import pytest

from firstread.integration.dicom import header as header_module
from firstread.integration.dicom.header import read_header, text_of
from firstread.integration.dicom.status import CannotUnderstand
from tests.integration.dicom_wire import BIG_ENDIAN, DEFLATED, EXPLICIT, IMPLICIT, Film, element
from tests.peers import real_films

STUDY = 0x0020000D
UNDEFINED = 0xFFFFFFFF


def header_of(tmp_path: Path, content: bytes, syntax: str = EXPLICIT, **options: int):
    path = tmp_path / "data_set"
    path.write_bytes(b"meta" + content)
    return read_header(path, 4, syntax, **options)


def item(content: bytes, *, undefined: bool = True) -> bytes:
    if undefined:
        return struct.pack("<HHL", 0xFFFE, 0xE000, UNDEFINED) + content + struct.pack("<HHL", 0xFFFE, 0xE00D, 0)
    return struct.pack("<HHL", 0xFFFE, 0xE000, len(content)) + content


def sequence(tag: int, items: bytes, *, undefined: bool = True) -> bytes:
    if undefined:
        return element(tag, "SQ", b"", length=UNDEFINED) + items + struct.pack("<HHL", 0xFFFE, 0xE0DD, 0)
    return element(tag, "SQ", items)


def test_header_equals_what_pydicom_reads_from_every_real_film() -> None:
    import pydicom

    for path in sorted((real_films() / "dicom").glob("*.dcm")):
        whole = pydicom.dcmread(path, stop_before_pixels=True)
        from firstread.integration.dicom.part10 import read_meta

        ours = read_header(path, read_meta(path).data_set_offset, whole.file_meta.TransferSyntaxUID)
        large = {each.tag for each in whole if isinstance(each.value, bytes) and len(each.value) > 65_536}
        assert {each.tag for each in ours} == {each.tag for each in whole} - large, path.name
        assert all(ours[each.tag] == whole[each.tag] for each in ours), path.name


def test_hundred_megabytes_of_private_tags_are_passed_over(tmp_path: Path) -> None:
    film = Film()
    path = tmp_path / "big"
    private = element(0x00091010, "UN", b"", length=100_000_000)
    inner = item(element(0x00091011, "OB", b"", length=50_000_000) + b"\0" * 50_000_000)
    whole = film.data_set()
    cut = whole.index(b"\x10\x00\x10\x00PN")
    with path.open("wb") as file:
        file.write(whole[:cut] + private)
        file.seek(100_000_000, 1)
        file.write(sequence(0x00091020, inner) + whole[cut:])
    tracemalloc.start()
    header = read_header(path, 0, EXPLICIT)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert text_of(header, STUDY) == film.study_instance_uid
    assert peak < 3_000_000
    assert 0x00091010 not in header
    assert len(header[0x00091020].value[0]) == 0


def test_deflated_bomb_is_given_up_within_bounds(tmp_path: Path) -> None:
    packer = zlib.compressobj(9, wbits=-15)
    bomb = packer.compress(element(0x00091010, "UN", b"", length=2_000_000_000))
    bomb += b"".join(packer.compress(b"\0" * 1_000_000) for _ in range(200)) + packer.flush()
    assert len(bomb) < 300_000
    with pytest.raises(CannotUnderstand, match="within bounds"):
        header_of(tmp_path, bomb, DEFLATED, inflate_limit=50_000_000)


def test_damaged_deflate_says_so(tmp_path: Path) -> None:
    with pytest.raises(CannotUnderstand, match="damaged"):
        header_of(tmp_path, b"\xff" * 200, DEFLATED)


@pytest.mark.parametrize("undefined", [True, False])
def test_small_sequences_are_kept_whatever_their_length_says(tmp_path: Path, undefined: bool) -> None:
    inner = item(element(0x00080050, "SH", b"ACC123"), undefined=undefined)
    header = header_of(tmp_path, Film(before_pixels=sequence(0x00400275, inner, undefined=undefined)).data_set())
    assert header.RequestAttributesSequence[0].AccessionNumber == "ACC123"


def test_large_sequence_is_left_out_and_what_follows_is_read(tmp_path: Path) -> None:
    many = b"".join(item(element(0x00080050, "SH", b"A" * 60)) for _ in range(20_000))
    film = Film()
    content = element(0x00080005, "CS", b"ISO_IR 192") + sequence(0x00081140, many) + film.data_set()
    header = header_of(tmp_path, content)
    assert 0x00081140 not in header
    assert text_of(header, STUDY) == film.study_instance_uid


def test_sequences_a_thousand_deep_neither_recurse_nor_hide_what_follows(tmp_path: Path) -> None:
    deep = b""
    for _ in range(1000):
        deep = sequence(0x00081140, item(deep))
    film = Film()
    header = header_of(tmp_path, deep + film.data_set())
    assert 0x00081140 not in header
    assert text_of(header, STUDY) == film.study_instance_uid


def test_unknown_vr_of_undefined_length_is_walked_and_left_out(tmp_path: Path) -> None:
    inside = item(element(0x00091011, "LO", b"implicit inside ", implicit=True))
    odd = element(0x00091010, "UN", b"", length=UNDEFINED) + inside + struct.pack("<HHL", 0xFFFE, 0xE0DD, 0)
    film = Film(private=odd)
    header = header_of(tmp_path, film.data_set())
    assert text_of(header, STUDY) == film.study_instance_uid
    assert 0x00091010 not in header


def test_encapsulated_icon_before_the_pixels_is_no_obstacle(tmp_path: Path) -> None:
    icon = element(0x7FE00010, "OB", b"", length=UNDEFINED) + item(b"", undefined=False)
    icon += item(b"\xff\xd8jpeg", undefined=False) + struct.pack("<HHL", 0xFFFE, 0xE0DD, 0)
    header = header_of(tmp_path, Film(before_pixels=sequence(0x00880200, item(icon))).data_set())
    assert "IconImageSequence" in header


def test_million_empty_elements_are_an_error_and_not_a_minute(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(header_module, "MOST_ELEMENTS", 1000)
    with pytest.raises(CannotUnderstand, match="more than 1000 elements"):
        header_of(tmp_path, b"".join(element(0x00091000 + number, "LO", b"") for number in range(1001)))


def test_deflated_zeros_are_an_error_at_once(tmp_path: Path) -> None:
    packed = zlib.compress(bytes(8 << 20), 9, wbits=-15)
    assert len(packed) < 10_000
    with pytest.raises(CannotUnderstand, match=r"\(0000,0000\) stands there again and again"):
        header_of(tmp_path, packed, DEFLATED)


def test_an_element_twice_in_a_row_is_kept_and_one_without_end_is_an_error(tmp_path: Path) -> None:
    once = element(0x00081140, "LO", b"ab")
    nested = sequence(0x00081140, item(once) + item(once))
    for private in (nested, once + once):
        assert "StudyInstanceUID" in header_of(tmp_path, Film(private=private).data_set())
    with pytest.raises(CannotUnderstand, match="again and again"):
        header_of(tmp_path, Film(private=once * 100).data_set())


@pytest.mark.parametrize(("syntax", "options"), [(IMPLICIT, {"implicit": True}), (BIG_ENDIAN, {"big": True})])
def test_other_encodings_and_wrong_claims_about_them(tmp_path: Path, syntax: str, options: dict[str, bool]) -> None:
    film = Film()
    assert text_of(header_of(tmp_path, film.data_set(**options), syntax), STUDY) == film.study_instance_uid
    if syntax == IMPLICIT:
        assert text_of(header_of(tmp_path, film.data_set(), syntax), STUDY) == film.study_instance_uid
        assert text_of(header_of(tmp_path, film.data_set(implicit=True), EXPLICIT), STUDY) == film.study_instance_uid


def test_random_damage_raises_nothing_but_cannot_understand(tmp_path: Path) -> None:
    import random

    chance = random.Random(7)
    inner = item(element(0x00080050, "SH", b"ACC123"))
    whole = bytearray(Film(before_pixels=sequence(0x00400275, inner), pixels=b"\0" * 64).data_set())
    understood = 0
    for _ in range(500):
        damaged = bytearray(whole)
        for _ in range(chance.randint(1, 6)):
            damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        syntax = chance.choice([EXPLICIT, IMPLICIT, BIG_ENDIAN])
        try:
            header = header_of(tmp_path, bytes(damaged[: chance.randrange(1, len(damaged))]), syntax)
        except CannotUnderstand:
            continue
        text_of(header, STUDY)
        understood += 1
    assert 0 < understood < 500
