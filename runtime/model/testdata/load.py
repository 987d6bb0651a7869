"""Loads the weights of the models in testdata/own into PyTorch, strictly, and
records what PyTorch computes with them (see record). The models are those of
testModel in model_test.go: a ModuleList called layers, whose Linear layers are
each followed by an activation.
"""

import json
import pathlib

import safetensors.torch
import torch
from torch import nn
from torch.nn import functional

own = pathlib.Path(__file__).parent / "own"
activations = {
    "Linear": lambda x: x,
    "ReLU": functional.relu,
    "LeakyReLU": lambda x: functional.leaky_relu(x, 0.2),
    "LeakyReLU-of-0": lambda x: functional.leaky_relu(x, 0.0),
    "ELU": lambda x: functional.elu(x, 1.5),
    "GELU": functional.gelu,
    "GELUTanh": lambda x: functional.gelu(x, approximate="tanh"),
    "Sigmoid": torch.sigmoid,
    "Tanh": torch.tanh,
    "Softmax": lambda x: torch.softmax(x, dim=1),
}


class Normalization(nn.Module):
    """The one layer that torch.nn does not have."""

    def __init__(self, columns):
        super().__init__()
        self.register_buffer("mean", torch.zeros(columns))
        self.register_buffer("scale", torch.ones(columns))

    def forward(self, x):
        return (x - self.mean) * self.scale


class Model(nn.Module):
    def __init__(self, activation):
        super().__init__()
        self.activation = activation
        self.layers = nn.ModuleList([
            Normalization(4), nn.Linear(4, 5), nn.Dropout(0.5), nn.BatchNorm1d(5, eps=1e-3), nn.Linear(5, 3, bias=False)])

    def forward(self, x):
        for layer in self.layers:
            x = layer(x)
            if isinstance(layer, nn.Linear):
                x = self.activation(x)
        return x


for folder in sorted(own.iterdir()):
    model = Model(activations[folder.name]).eval()
    model.load_state_dict(safetensors.torch.load_file(folder / "model.safetensors"), strict=True)
    inputs = json.loads((folder / "expected.json").read_text())["inputs"]
    with torch.no_grad():
        outputs = model(torch.tensor(inputs))
    (folder / "pytorch.json").write_text(json.dumps({"inputs": inputs, "outputs": outputs.tolist()}) + "\n")
    print(folder.name, "loaded by PyTorch", torch.__version__)
