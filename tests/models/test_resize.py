"""Squares for weights from elsewhere are those that their own libraries make, and boxes find their way back."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from firstread.models.prediction import Box
from firstread.models.preprocess import Preprocessing, place, prepare
from firstread.models.resize import resize

SIZE = 64
FOREIGN = Preprocessing(input_size=SIZE, trim=False, equalise=False, max_aspect=4.0, resample="bilinear")


def film(rows: int, columns: int, seed: int = 0) -> np.ndarray:
    """8-bit values [rows, columns], from coarse to fine and with hard edges."""
    rng = np.random.default_rng(seed)
    coarse = np.kron(rng.random((rows // 16 + 1, columns // 16 + 1)), np.ones((16, 16)))[:rows, :columns]
    return (coarse * 200 + rng.random((rows, columns)) * 55).astype(np.uint8)


def grey(eight_bit: np.ndarray) -> np.ndarray:
    return eight_bit.astype(np.float32) / np.float32(255)


def torchvision_resize(picture: Image.Image, size: int | tuple[int, int], how: str) -> np.ndarray:
    from torchvision.transforms import InterpolationMode, Resize

    return np.asarray(Resize(size, InterpolationMode(how))(picture))


@pytest.mark.parametrize("how", ["bilinear", "bicubic"])
@pytest.mark.parametrize("shape", [(200, 150), (97, 331), (40, 50)])
def test_resizing_is_torchvisions_on_a_picture_of_floats(how: str, shape: tuple[int, int]) -> None:
    eight_bit = film(*shape)
    theirs = torchvision_resize(Image.fromarray(eight_bit.astype(np.float32)), (SIZE, SIZE), how) / 255
    ours = prepare(grey(eight_bit), replace(FOREIGN, resample=how))
    np.testing.assert_allclose(ours, np.clip(theirs, 0, 1), atol=1e-6)


@pytest.mark.parametrize("how", ["bilinear", "bicubic"])
@pytest.mark.parametrize("shape", [(200, 150), (97, 331), (40, 50)])
def test_in_eight_bits_resizing_is_torchvisions_on_a_grey_picture(how: str, shape: tuple[int, int]) -> None:
    eight_bit = film(*shape)
    theirs = torchvision_resize(Image.fromarray(eight_bit), (SIZE, SIZE), how)
    ours = prepare(grey(eight_bit), replace(FOREIGN, resample=how, eight_bit=True))
    np.testing.assert_allclose(ours, theirs / 255, atol=1e-6)


@pytest.mark.parametrize("shape", [(200, 150), (150, 200), (97, 331), (331, 97), (64, 64), (50, 41)])
@pytest.mark.parametrize("shorter", [64, 73, 80])
def test_resizing_and_cropping_is_torchvisions(shape: tuple[int, int], shorter: int) -> None:
    from torchvision.transforms import CenterCrop

    eight_bit = film(*shape)
    resized = torchvision_resize(Image.fromarray(eight_bit.astype(np.float32)), shorter, "bilinear")
    theirs = np.asarray(CenterCrop(SIZE)(Image.fromarray(resized))) / 255
    ours = prepare(grey(eight_bit), replace(FOREIGN, fit="resize_then_crop", resize_to=shorter))
    np.testing.assert_allclose(ours, theirs, atol=1e-6)


def test_an_eight_bit_resize_and_crop_is_timms_own_transform() -> None:
    from timm.data.transforms_factory import transforms_imagenet_eval

    eight_bit = film(201, 350)
    transform = transforms_imagenet_eval(SIZE, interpolation="bicubic", crop_pct=0.875, mean=(0, 0, 0), std=(1, 1, 1))
    theirs = transform(Image.fromarray(eight_bit).convert("RGB")).numpy()
    ours = prepare(
        grey(eight_bit), replace(FOREIGN, resample="bicubic", fit="resize_then_crop", resize_to=73, eight_bit=True)
    )
    np.testing.assert_allclose(np.stack([ours] * 3), theirs, atol=1e-6)


@pytest.mark.parametrize("shape", [(200, 150), (97, 331), (130, 129), (64, 64), (40, 300)])
def test_the_gaussian_square_is_torchxrayvisions(shape: tuple[int, int]) -> None:
    import torchxrayvision as xrv

    eight_bit = film(*shape)
    scaled = xrv.datasets.normalize(eight_bit.astype(np.float32), 255)[None]
    theirs = xrv.datasets.XRayResizer(SIZE)(xrv.datasets.XRayCenterCrop()(scaled))[0]
    ours = prepare(grey(eight_bit), replace(FOREIGN, fit="centre_crop", resample="gaussian"))
    np.testing.assert_allclose((ours - 0.5) * 2048, theirs, atol=2e-3)  # of 2048 grey levels: 1e-6 of the range


@pytest.mark.parametrize("shape", [(300, 200), (100, 220), (64, 64), (50, 80), (64, 81)])
def test_one_box_resample_for_a_part_is_that_of_the_part_alone(shape: tuple[int, int]) -> None:
    whole = grey(film(*shape))
    part = whole[5:45, 3:43]
    for how in ("box", "bilinear", "bicubic", "gaussian"):
        np.testing.assert_allclose(
            resize(whole, (20, 20), how, box=(3, 5, 43, 45)), resize(part, (20, 20), how), atol=1e-5, err_msg=how
        )


@pytest.mark.parametrize(
    "changed",
    [
        {"fit": "stretch"},
        {"fit": "centre_crop"},
        {"fit": "resize_then_crop", "resize_to": 80},
        {"fit": "stretch", "trim": True},
        {"fit": "centre_crop", "trim": True},
        {"fit": "resize_then_crop", "resize_to": 80, "trim": True},
        {"fit": "centre_crop", "resample": "gaussian"},
    ],
)
@pytest.mark.parametrize("shape", [(240, 300), (300, 240)])
def test_a_bright_spot_in_the_square_is_found_where_it_lies_on_the_film(
    changed: dict[str, object], shape: tuple[int, int]
) -> None:
    """The spot's place in the square, led back by the placement, is its place on the film."""
    preprocessing = replace(FOREIGN, **changed)
    picture = grey(film(*shape)) * 0.2
    picture[:20], picture[:, :12] = 0, 0  # an empty border, for those that trim
    spot = Box(130, 110, 150, 130)
    picture[110:130, 130:150] = 1
    placement = place(picture, preprocessing)
    square = prepare(picture, preprocessing, placement)
    rows, columns = np.nonzero(square > 0.6)
    found = placement.to_film(Box(columns.min(), rows.min(), columns.max() + 1, rows.max() + 1))
    cell = max(shape) / SIZE
    for name in ("left", "top", "right", "bottom"):
        assert getattr(found, name) == pytest.approx(getattr(spot, name), abs=cell), name
    again = placement.to_square(spot)
    assert again.left == pytest.approx(columns.min(), abs=1.01)
    assert again.bottom == pytest.approx(rows.max() + 1, abs=1.01)


def test_grey_that_is_not_equalised_stays_as_it_is() -> None:
    flat = np.full((90, 90), 0.25, np.float32)
    np.testing.assert_allclose(prepare(flat, FOREIGN), 0.25, atol=1e-7)


def test_a_bicubic_edge_does_not_leave_the_range() -> None:
    picture = np.zeros((200, 200), np.float32)
    picture[60:140, 60:140] = 1
    square = prepare(picture, replace(FOREIGN, resample="bicubic"))
    assert square.min() == 0
    assert square.max() == 1


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"fit": "letterbox"}, "preprocessing.fit is 'letterbox'"),
        ({"resample": "lanczos"}, "preprocessing.resample is 'lanczos'"),
        ({"fit": "resize_then_crop"}, "preprocessing.resize_to is 0: the shorter side needs 64 to 2048 pixels"),
        ({"fit": "resize_then_crop", "resize_to": 63}, "preprocessing.resize_to is 63"),
    ],
)
def test_parameters_that_cannot_be_meant_are_refused(changed: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        replace(FOREIGN, **changed)
