"""The same film through the library that weights come from and through the bundle made of them: equal to 1e-5."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import timm
import torch
import torchxrayvision as xrv
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn
from torchvision import models, transforms

from firstread.models.bundle import Bundle, verify_bundle
from firstread.models.engine import open_engine
from firstread.models.importing.importer import Imported, Request, import_weights
from firstread.models.importing.origins import Wanted
from tests.models import importing_nets as nets

Films = list[npt.NDArray[np.uint8]]


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def films() -> Films:
    return nets.films()


def through_torchvision(network: nn.Module, prepared: Callable[[Image.Image], Tensor], films: Films) -> Tensor:
    """Logits by the library's own pictures and transforms: Pillow, three channels, 8 bits."""
    with torch.inference_mode():
        return network(torch.stack([prepared(Image.fromarray(film).convert("RGB")) for film in films]))


def classic(size: int = 224) -> Callable[[Image.Image], Tensor]:
    """What torchvision's own recipes and its pretrained weights (``IMAGENET1K_V1``) do."""
    return transforms.Compose(
        [
            transforms.Resize(size * 256 // 224),
            transforms.CenterCrop(size),
            transforms.ToTensor(),
            transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
        ]
    )


def agree(bundle: Bundle, films: Films, original: npt.NDArray[np.float32], tolerance: float = 1e-5) -> None:
    engine = open_engine(bundle, "cpu", threads=1)
    found = nets.served(engine, films)
    assert float(np.abs(found - original).max()) <= tolerance
    # A comparison of constants or of zeros and ones would prove nothing.
    assert float(np.ptp(original, axis=0).max()) > 0.05
    assert float(((original > 0.05) & (original < 0.95)).mean()) > 0.15
    assert float(np.abs(original - np.roll(original, 1, axis=1)).max()) > 0.1
    # So would one that the preparation of films had no part in.
    other = "bicubic" if bundle.preprocessing.resample == "bilinear" else "bilinear"
    assert float(np.abs(nets.served(engine, films, resample=other) - original).max()) > 20 * tolerance


@pytest.mark.parametrize(
    ("labels", "wrap", "file"),
    [
        (nets.NIH14, lambda s: s, "w.pth"),
        (nets.NIH15, lambda s: nets.prefixed(s, "module."), "w.pt"),
        (
            nets.NIH15,
            lambda s: {"state_dict": nets.prefixed(s, "model."), "epoch": 1, "hyper_parameters": {}},
            "w.ckpt",
        ),
        (nets.NIH14, lambda s: {"model": nets.prefixed(s, "module.")}, "w.pth"),
    ],
    ids=["14 outputs", "15 outputs, DataParallel", "15 outputs, Lightning", "14 outputs, in a container"],
)
def test_torchvision_weights_answer_as_torchvision(
    labels: str, wrap: Callable[[dict[str, Tensor]], object], file: str, films: Films, tmp_path: Path
) -> None:
    network = nets.narrow_resnet50(labels.count(",") + 1)
    nets.saved(wrap(dict(network.state_dict())), tmp_path / file)
    done = import_weights(Request(file=tmp_path / file, labels=labels, out=tmp_path / "b", threads=1))
    logits = through_torchvision(network, classic(), films)
    agree(done.bundle, films, logits.sigmoid().numpy()[:, nets.columns(done.bundle, labels.split(","))])
    assert done.parity.worst_difference <= 1e-5
    assert verify_bundle(done.bundle.folder) == []


def test_other_transforms_are_followed_where_the_user_names_them(films: Films, tmp_path: Path) -> None:
    network = nets.narrow_resnet50(15)
    nets.saved(network.state_dict(), tmp_path / "w.pt")
    prepared = transforms.Compose(
        [
            transforms.Resize((320, 320), transforms.InterpolationMode.BICUBIC),
            transforms.ToTensor(),
            transforms.Normalize([0.5] * 3, [0.25] * 3),
        ]
    )
    wanted = Wanted(input_size=320, fit="stretch", resample="bicubic", mean=(0.5,), std=(0.25,))
    done = import_weights(
        Request(
            file=tmp_path / "w.pt", labels=nets.NIH15, out=tmp_path / "b", wanted=wanted, output="softmax", threads=1
        )
    )
    agree(done.bundle, films, through_torchvision(network, prepared, films).softmax(1).numpy())


def test_half_precision_is_measured_and_said(films: Films, tmp_path: Path) -> None:
    network = nets.narrow_resnet50(14)
    with torch.no_grad():  # the test network's head magnifies rounding as no trained one does
        network.fc.weight.mul_(0.1)
        network.fc.bias.mul_(0.1)
    nets.saved(network.state_dict(), tmp_path / "w.pt")
    request = Request(file=tmp_path / "w.pt", labels=nets.NIH14, out=tmp_path / "b", precision="float16", threads=1)
    done = import_weights(request)
    assert 1e-5 < done.parity.worst_difference < 1e-2
    assert any("what float16 costs" in remark for remark in done.remarks)


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> tuple[nn.Module, Imported]:
    """torchvision's own ResNet50, full size, as DataParallel saves it."""
    torch.manual_seed(11)
    network = models.resnet50(num_classes=14)
    nets.livened(network, network.fc)
    folder = tmp_path_factory.mktemp("full")
    nets.saved(nets.prefixed(dict(network.state_dict()), "module."), folder / "w.pth")
    return network, import_weights(
        Request(file=folder / "w.pth", arch="resnet50", labels=nets.NIH14, out=folder / "b", threads=1)
    )


@pytest.mark.slow
def test_a_full_size_torchvision_resnet50_answers_as_torchvision(
    full: tuple[nn.Module, Imported], films: Films
) -> None:
    network, done = full
    logits = through_torchvision(network, classic(), films)
    agree(done.bundle, films, logits.sigmoid().numpy())
    assert done.bundle.labels == tuple(nets.NIH14.split(","))


@pytest.mark.slow
def test_a_full_size_timm_resnet50_answers_as_timm(films: Films, tmp_path: Path) -> None:
    torch.manual_seed(12)
    network = timm.create_model("resnet50", num_classes=14)
    nets.livened(network, network.fc)
    save_file(dict(network.state_dict()), tmp_path / "w.safetensors")
    done = import_weights(
        Request(file=tmp_path / "w.safetensors", arch="timm-resnet50", labels=nets.NIH14, out=tmp_path / "b", threads=1)
    )
    prepared = timm.data.create_transform(**timm.data.resolve_data_config({}, model=network))
    agree(done.bundle, films, through_torchvision(network, prepared, films).sigmoid().numpy())


@pytest.mark.slow
def test_torchxrayvisions_resnet50_answers_as_torchxrayvision(films: Films, tmp_path: Path) -> None:
    """Its constructor downloads; a random network of its shape lies in its cache where it looks first."""
    name = "resnet50-res512-all"
    torch.manual_seed(13)
    network = models.resnet50(num_classes=18)
    network.conv1 = nn.Conv2d(1, 64, kernel_size=7, stride=2, padding=3, bias=False)
    nets.livened(network, network.fc)
    weights = tmp_path / xrv.models.model_urls[name]["weights_url"].rsplit("/", 1)[1]
    torch.save(network.state_dict(), weights)
    library = xrv.models.ResNet(weights=name, cache_dir=str(tmp_path))
    prepared = transforms.Compose([xrv.datasets.XRayCenterCrop(), xrv.datasets.XRayResizer(512)])
    pixels = np.stack([prepared(xrv.utils.normalize(film, 255, reshape=True)) for film in films])
    with torch.inference_mode():
        bent = library(torch.from_numpy(pixels)).numpy()
        library.op_threshs, library.apply_sigmoid = None, True
        plain = library(torch.from_numpy(pixels)).numpy()

    done = import_weights(Request(file=weights, arch="torchxrayvision-resnet50", out=tmp_path / "b", threads=1))
    used = nets.columns(done.bundle, library.targets)
    agree(done.bundle, films, plain[:, used])
    # Bent by the library's own operating points, the bundle's answer is what the library shows by default.
    points = torch.tensor(xrv.models.model_urls[name]["op_threshs"])[used]
    again = xrv.models.op_norm(
        torch.from_numpy(nets.served(open_engine(done.bundle, "cpu", threads=1), films)), points
    ).numpy()
    assert float(np.abs(again - bent[:, used]).max()) <= 1e-5
    assert len(done.bundle.labels) == 14
    assert "No Finding" not in done.bundle.labels
    assert done.dropped == ("Lung Lesion", "Fracture", "Lung Opacity", "Enlarged Cardiomediastinum")
