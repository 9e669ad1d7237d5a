"""First weights: torchvision's published ones through its own API, a file's, a bundle's; wrong ones are named."""

from __future__ import annotations

import hashlib
import io
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from torchvision.models import ResNet50_Weights

from firstread.models.architecture import Architecture
from firstread.models.bundle import BundleError
from firstread.models.data.film import DataError
from firstread.models.findings import LABELS
from firstread.models.network import ChestNetwork, state_of
from firstread.models.training.start import first_weights, imagenet_weights, network_of, take, without_rows
from tests.models.tiny import make_tiny_bundle
from tests.models.training_films import recipe

DEEP = {"width": 4, "blocks": (3, 4, 6, 3)}
"""As deep as a ResNet50: that is what published weights are recognised by."""


class Published:
    """A web server that has a file of weights, as download.pytorch.org has them."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder, self.port = folder, port
        self.asked: list[str] = []

    def publish(self, content: bytes, digest: str | None = None) -> str:
        """The file's address; its name ends in the first digits of its SHA-256, which torch checks."""
        name = f"resnet50-{digest or hashlib.sha256(content).hexdigest()[:8]}.pth"
        (self.folder / name).write_bytes(content)
        return f"http://127.0.0.1:{self.port}/{name}"


@pytest.fixture
def published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Published]:
    folder = tmp_path / "web"
    folder.mkdir()
    asked: list[str] = []

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            asked.append(self.path)

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    site = Published(folder, server.server_address[1])
    site.asked = asked
    yield site
    server.shutdown()
    server.server_close()


def torchvision_file(width: int = 4) -> bytes:
    """A state dict with 1000 outputs, as torchvision publishes it, of a narrow network."""
    torch.manual_seed(1)
    network = ChestNetwork(Architecture(outputs=1000, width=width))
    stream = io.BytesIO()
    torch.save(network.resnet.state_dict(), stream)
    return stream.getvalue()


def use(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ResNet50_Weights.IMAGENET1K_V2.value, "url", url)


def test_imagenets_weights_come_through_torchvision_are_checked_by_hash_and_fetched_once(
    published: Published, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = torchvision_file()
    use(published.publish(content), monkeypatch)
    found = imagenet_weights()
    wanted = torch.load(io.BytesIO(content), weights_only=True)
    assert torch.equal(found["layer4.2.conv3.weight"], wanted["layer4.2.conv3.weight"])
    imagenet_weights()
    assert len(published.asked) == 1


def test_a_download_with_another_hash_is_refused_and_nothing_of_it_stays(
    published: Published, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    use(published.publish(torchvision_file(), digest="deadbeef"), monkeypatch)
    with pytest.raises(DataError, match=r"is not the file that torchvision published .* --weights FILE"):
        imagenet_weights()
    assert not list((tmp_path / "torch").rglob("*deadbeef*"))


def test_a_download_that_wants_to_run_code_does_not(published: Published, monkeypatch: pytest.MonkeyPatch) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (exec, ("raise SystemExit('ran')",))

    stream = io.BytesIO()
    torch.save({"conv1.weight": Evil()}, stream)
    use(published.publish(stream.getvalue()), monkeypatch)
    with pytest.raises(DataError, match="is broken"):
        imagenet_weights()


def test_without_a_network_the_address_and_the_other_way_are_named(
    published: Published, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(f"http://127.0.0.1:{published.port}/resnet50-00000000.pth", monkeypatch)
    with pytest.raises(DataError, match=r"could not be fetched from http://.*resnet50-00000000\.pth .* --weights FILE"):
        imagenet_weights()


def test_a_recipe_says_whether_it_begins_at_random(published: Published, monkeypatch: pytest.MonkeyPatch) -> None:
    use(published.publish(torchvision_file()), monkeypatch)
    assert first_weights(recipe(**DEEP), None) is None
    assert first_weights(recipe(**DEEP, initial="imagenet"), None) is not None


def test_published_weights_fill_the_backbone_and_the_head_begins_at_random(tmp_path: Path) -> None:
    (tmp_path / "w.pth").write_bytes(torchvision_file())
    made = recipe(**DEEP)
    first = first_weights(made, tmp_path / "w.pth")
    assert first is not None
    network, fresh = network_of(made, len(LABELS)), state_of(network_of(made, len(LABELS)))
    take(network, first, LABELS, "w.pth")
    found = state_of(network)
    assert torch.equal(found["conv1.weight"], first["conv1.weight"])
    assert torch.equal(found["bn1.running_var"], first["bn1.running_var"])
    assert torch.equal(found["fc.weight"], fresh["fc.weight"])


def test_weights_fill_a_dense_head_s_backbone_as_well(tmp_path: Path) -> None:
    (tmp_path / "w.pth").write_bytes(torchvision_file())
    made = recipe(**DEEP, head="dense", hidden=(8, 8))
    first = first_weights(made, tmp_path / "w.pth")
    assert first is not None
    network = network_of(made, len(LABELS))
    take(network, first, LABELS, "w.pth")
    assert torch.equal(state_of(network)["layer1.0.conv1.weight"], first["layer1.0.conv1.weight"])


def test_a_bundle_is_a_start_head_and_all(tmp_path: Path) -> None:
    bundle = make_tiny_bundle(tmp_path / "tiny")
    made = recipe(width=8, blocks=(1, 1, 1, 1))
    first = first_weights(made, bundle)
    assert first is not None
    network = network_of(made, len(LABELS) + 2)
    take(network, first, (*LABELS, "sex", "age"), "tiny")
    assert torch.equal(state_of(network)["fc.weight"][: len(LABELS)], first["fc.weight"])
    with pytest.raises(BundleError, match="must not be used"):
        first_weights(made, tmp_path)


def test_weights_of_another_network_are_named(tmp_path: Path) -> None:
    (tmp_path / "w.pth").write_bytes(torchvision_file(width=8))
    made = recipe(**DEEP)
    first = first_weights(made, tmp_path / "w.pth")
    assert first is not None
    with pytest.raises(DataError, match=r"w\.pth: .* instead of .*: these are not the weights of this recipe"):
        take(network_of(made, len(LABELS)), first, LABELS, "w.pth")
    with pytest.raises(DataError, match="no such file"):
        first_weights(made, tmp_path / "missing.pth")


def test_outputs_are_cut_off_in_the_head_and_in_what_reads_metadata() -> None:
    made = recipe(metadata=("age",))
    state = state_of(network_of(made, len(LABELS)))
    cut = without_rows(state, made.architecture(len(LABELS)), [14, 2])
    for name in ("fc.weight", "fc.bias", "metadata.2.weight", "metadata.2.bias"):
        assert torch.equal(cut[name], state[name][[14, 2]])
    assert torch.equal(cut["conv1.weight"], state["conv1.weight"])
