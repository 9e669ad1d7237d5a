"""Pixels of films: every kind of file to grey, and squares that are kept and found again."""

from __future__ import annotations

import errno
import os
import pickle
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from firstread.models.data import cache as cache_module
from firstread.models.data import pixels as pixels_module
from firstread.models.data.film import DataError, Film, concatenate
from firstread.models.data.pixel_view import PixelView
from firstread.models.data.pixels import grey_of, load
from firstread.models.data.processes import Failed, in_processes
from firstread.models.findings import LABELS
from tests.models.nih_release import picture, write_image


def film(path: Path, row: int | None = None) -> Film:
    zeros = np.zeros(len(LABELS), np.float32)
    return Film(path.name, path.stem, zeros, zeros, phantom=False, path=path, row=row)


@pytest.fixture
def films(tmp_path: Path) -> list[Film]:
    return [film(write_image(tmp_path / "films" / f"{n}.png", picture(n)), n + 2) for n in range(6)]


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Paths that were decoded, in order."""
    seen: list[Path] = []
    real = pixels_module.square_of

    def counting(path: Path, side: int) -> Any:
        seen.append(path)
        return real(path, side)

    monkeypatch.setattr(pixels_module, "square_of", counting)
    return seen


def test_grey_is_the_same_whatever_it_was_stored_as(tmp_path: Path) -> None:
    grey = picture(1)
    expected = grey / np.float32(255)
    colours = np.repeat(grey[..., None], 3, axis=2)
    opaque = np.concatenate([colours, np.full((*grey.shape, 1), 255, np.uint8)], axis=2)
    for name, values in (("l.png", grey), ("rgb.png", colours), ("rgba.png", opaque), ("l.tif", grey)):
        np.testing.assert_allclose(grey_of(film(write_image(tmp_path / name, values))), expected, atol=1 / 254)
    jpeg = grey_of(film(write_image(tmp_path / "l.jpg", grey, quality=95)))
    assert np.abs(jpeg - expected).mean() < 0.02
    deep = grey_of(film(write_image(tmp_path / "deep.png", grey.astype(np.uint16) * 13 + 3000)))
    stretched = (grey - grey.min()) / float(np.ptp(grey))
    np.testing.assert_allclose(deep, stretched, atol=1e-3)


def test_a_turned_jpeg_is_read_upright(tmp_path: Path) -> None:
    image = Image.fromarray(picture(2)[:, :48])
    marks = Image.Exif()
    marks[0x0112] = 6  # the camera lay on its side
    image.save(tmp_path / "turned.jpg", exif=marks)
    assert grey_of(film(tmp_path / "turned.jpg")).shape == (48, 96)


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda content: content[: len(content) // 2], "broken image"),
        (lambda content: b"", "the file is empty"),
        (lambda content: b"\x89PNG\r\n\x1a\nrubbish", "neither PNG, JPEG nor DICOM"),
        (lambda content: content[:60] + b"\xff" * 40 + content[100:], "broken image"),
    ],
)
def test_a_broken_file_is_said_with_its_row(tmp_path: Path, spoil: Any, reason: str) -> None:
    path = write_image(tmp_path / "a.png", picture(1))
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(DataError) as error:
        grey_of(film(path, row=7))
    assert reason in str(error.value)
    assert f"{path} (row 7 of the table)" in str(error.value)


def test_a_coloured_picture_and_several_frames_are_no_film(tmp_path: Path) -> None:
    coloured = np.zeros((64, 64, 3), np.uint8)
    coloured[..., 0] = 200
    with pytest.raises(DataError, match="a colour picture"):
        grey_of(film(write_image(tmp_path / "red.png", coloured)))
    frames = [Image.fromarray(picture(n)) for n in range(2)]
    frames[0].save(tmp_path / "two.tif", save_all=True, append_images=frames[1:])
    with pytest.raises(DataError, match="2 frames"):
        grey_of(film(tmp_path / "two.tif"))


def test_a_second_reading_decodes_nothing_and_gives_the_same(
    tmp_path: Path, films: list[Film], decoded: list[Path]
) -> None:
    first = load(films, 32, tmp_path / "cache")
    assert len(decoded) == 6
    again = load(films[::-1], 32, tmp_path / "cache")
    assert len(decoded) == 6
    np.testing.assert_array_equal(np.asarray(again.pixels)[::-1], np.asarray(load(films, 32).pixels))
    np.testing.assert_array_equal(first.image(2), again.image(3))


def test_only_a_film_that_changed_or_is_new_is_decoded_again(
    tmp_path: Path, films: list[Film], decoded: list[Path]
) -> None:
    load(films[:5], 32, tmp_path / "cache")
    decoded.clear()
    changed = films[1].path
    assert changed is not None
    write_image(changed, picture(99))
    os.utime(changed, ns=(1, 1))
    after = load(films, 32, tmp_path / "cache")
    assert decoded == [changed, films[5].path]
    np.testing.assert_array_equal(np.asarray(after.pixels), np.asarray(load(films, 32).pixels))


def test_squares_of_other_code_are_not_taken(
    tmp_path: Path, films: list[Film], decoded: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    load(films, 32, tmp_path / "cache")
    monkeypatch.setattr(cache_module, "decoder_version", lambda: "other")
    load(films, 32, tmp_path / "cache")
    assert len(decoded) == 12


def test_a_shard_without_its_keys_or_cut_short_is_made_again(
    tmp_path: Path, films: list[Film], decoded: list[Path]
) -> None:
    expected = np.asarray(load(films, 32, tmp_path / "cache").pixels)
    (shard,) = (tmp_path / "cache").glob("*.npy")
    shard.write_bytes(shard.read_bytes()[:-100])
    np.testing.assert_array_equal(np.asarray(load(films, 32, tmp_path / "cache").pixels), expected)
    shard.with_suffix(".keys").unlink()
    np.testing.assert_array_equal(np.asarray(load(films, 32, tmp_path / "cache").pixels), expected)
    assert len(decoded) == 18


def test_a_full_disk_is_a_sentence_and_leaves_nothing_half_written(
    tmp_path: Path, films: list[Film], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(cache_module.os, "fsync", full)
    with pytest.raises(DataError, match="the disk is full"):
        load(films, 32, tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_killed_reading_leaves_nothing_that_is_loaded_and_is_swept(tmp_path: Path, films: list[Film]) -> None:
    script = textwrap.dedent(
        """
        import sys, time
        from pathlib import Path
        from firstread.models.data.cache import Cache, key_of
        import numpy as np
        def slow():
            yield np.zeros((32, 32), np.uint8)
            print("half", flush=True)
            time.sleep(60)
        Cache(Path(sys.argv[1]), 32).write([key_of(Path(name)) for name in sys.argv[2:]], slow())
        """
    )
    names = [str(one.path) for one in films[:2]]
    killed = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path / "cache"), *names], stdout=subprocess.PIPE, text=True
    )
    assert killed.stdout is not None
    assert killed.stdout.readline() == "half\n"
    assert len(list((tmp_path / "cache").iterdir())) == 1
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    np.testing.assert_array_equal(
        np.asarray(load(films, 32, tmp_path / "cache").pixels), np.asarray(load(films, 32).pixels)
    )
    assert not list((tmp_path / "cache").glob(".*"))


def test_broken_films_are_named_and_the_others_are_kept(tmp_path: Path, films: list[Film], decoded: list[Path]) -> None:
    for broken in (films[1], films[4]):
        assert broken.path is not None
        broken.path.write_bytes(b"rubbish")
    with pytest.raises(DataError, match=r"1.png \(row 3 of the table\).*and 1 more"):
        load(films, 32, tmp_path / "cache")
    decoded.clear()
    load([films[0], films[5]], 32, tmp_path / "cache")
    assert decoded == []


def test_a_subset_of_films_on_disk_copies_nothing_and_travels_as_file_names(tmp_path: Path, films: list[Film]) -> None:
    whole = load(films, 32, tmp_path / "cache")
    part = whole.subset([4, 2]).subset([1])
    assert isinstance(part.pixels, PixelView)
    assert part.films == (films[2],)
    np.testing.assert_array_equal(part.image(0), whole.image(2))
    sent = pickle.dumps(whole)
    assert len(sent) < 16_000  # six squares alone are 6144 bytes, and films carry their labels
    np.testing.assert_array_equal(pickle.loads(sent).image(5), whole.image(5))
    joined = concatenate([part, load(films[:1], 32)])
    assert isinstance(joined.pixels, PixelView)
    np.testing.assert_array_equal(np.asarray(joined.pixels), np.stack([whole.pixels[2], whole.pixels[0]]))


def test_a_view_is_indexed_like_the_array_it_stands_for() -> None:
    array = np.random.default_rng(0).integers(0, 256, (7, 8, 8)).astype(np.uint8)
    view = PixelView.of(array)
    flags = np.array([True, False] * 3 + [True])
    for index in (3, -1, slice(1, 6, 2), [5, 0], np.array([2, 2]), flags):
        np.testing.assert_array_equal(view[index], array[index])
    assert (view.shape, len(view), view.nbytes) == (array.shape, 7, array.nbytes)


def _end_at_three(number: int) -> int:
    if number == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return number * 2


def test_a_film_that_kills_its_decoder_costs_that_film_alone() -> None:
    began = time.monotonic()
    results = list(in_processes(_end_at_three, list(range(60)), workers=2))
    assert isinstance(results[3], Failed)
    assert [one for one in results if not isinstance(one, Failed)] == [2 * n for n in range(60) if n != 3]
    assert time.monotonic() - began < 60
