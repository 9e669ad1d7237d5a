"""The network is torchvision's ResNet50, and its maps explain its logits."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torchvision.models import resnet50

from firstread.models.architecture import Architecture, parameter_shapes
from firstread.models.network import ChestNetwork, load_state, state_of

SMALL = Architecture(outputs=4, width=8, blocks=(1, 2, 1, 1))


def test_the_weights_carry_torchvisions_names_and_shapes() -> None:
    published = resnet50(weights=None, num_classes=15).state_dict()
    names = {name for name in published if not name.endswith("num_batches_tracked")}
    shapes = parameter_shapes(Architecture(outputs=15))
    assert set(shapes) == names
    assert all(tuple(published[name].shape) == shapes[name] for name in names)


@pytest.mark.parametrize("architecture", [SMALL, Architecture(outputs=15, blocks=(1, 1, 1, 1), dilate_last=False)])
def test_the_shapes_foretold_are_those_of_the_network(architecture: Architecture) -> None:
    found = {name: tuple(tensor.shape) for name, tensor in state_of(ChestNetwork(architecture)).items()}
    assert found == parameter_shapes(architecture)


def test_torchvisions_own_forward_gives_the_same_logits() -> None:
    torch.manual_seed(0)
    plain = resnet50(weights=None, num_classes=15).eval()
    network = ChestNetwork(Architecture(outputs=15, dilate_last=False)).eval()
    state = {name: tensor for name, tensor in plain.state_dict().items() if not name.endswith("num_batches_tracked")}
    load_state(network, state)
    squares = torch.rand(1, 64, 64)
    with torch.inference_mode():
        logits, activations = network(squares)
        expected = plain(((squares - 0.5) / 0.25).unsqueeze(1).expand(-1, 3, -1, -1))
    torch.testing.assert_close(logits, expected, atol=1e-4, rtol=1e-4)
    assert activations.shape == (1, 15, 2, 2)


def test_a_map_averages_to_its_logit_without_the_bias() -> None:
    torch.manual_seed(0)
    network = ChestNetwork(SMALL).eval()
    with torch.inference_mode():
        logits, activations = network(torch.rand(3, 96, 96))
    assert activations.shape == (3, 4, 6, 6)
    torch.testing.assert_close(activations.mean(dim=(2, 3)) + network.resnet.fc.bias, logits)


def test_a_soft_maximum_lets_one_cell_in_many_count() -> None:
    torch.manual_seed(0)
    network = ChestNetwork(replace(SMALL, pooling="log_mean_exp")).eval()
    with torch.inference_mode():
        logits, activations = network(torch.rand(3, 96, 96))
    expected = activations.exp().mean(dim=(2, 3)).log() + network.resnet.fc.bias
    torch.testing.assert_close(logits, expected, atol=1e-4, rtol=1e-4)


def test_random_weights_give_another_map() -> None:
    """The randomisation test: a map must depend on what was learned."""
    maps = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        network = ChestNetwork(SMALL).eval()
        with torch.inference_mode():
            maps.append(network(torch.rand(1, 96, 96, generator=torch.Generator().manual_seed(5)))[1].flatten())
    assert abs(float(torch.corrcoef(torch.stack(maps))[0, 1])) < 0.9


def test_weights_of_another_network_are_refused() -> None:
    network = ChestNetwork(SMALL)
    state = state_of(network)
    with pytest.raises(RuntimeError, match=r"fc\.bias"):
        load_state(network, {name: tensor for name, tensor in state.items() if name != "fc.bias"})


def test_a_network_that_cannot_be_built_says_which_value_is_wrong() -> None:
    for values, said in (
        ({"name": "vgg16"}, "unknown"),
        ({"blocks": (1, 2)}, "blocks"),
        ({"std": (0.0, 1, 1)}, "std"),
        ({"pooling": "max"}, "pooling"),
    ):
        with pytest.raises(ValueError, match=said):
            Architecture(outputs=15, **values)
