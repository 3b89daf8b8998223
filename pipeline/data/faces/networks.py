"""The three networks of MTCNN (Zhang et al. 2016), as the wheel `facenet-pytorch` names their layers."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor, nn

from pipeline import weights


class Network(nn.Module):
    """Layers in a row, then heads side by side: the first is (no face, face), the second how the borders move.

    Args:
        path: the state dict that fills it, whole.

    Raises:
        WeightsError: it does not.
    """

    def __init__(self, path: Path, trunk: dict[str, nn.Module], *heads: nn.Module) -> None:
        super().__init__()
        layers, number = nn.ModuleDict(trunk), len([name for name in trunk if name.startswith(("conv", "dense"))]) + 1
        kind = "conv" if isinstance(heads[0], nn.Conv2d) else "dense"
        branches = nn.ModuleDict({f"{kind}{number}_{i}": head for i, head in enumerate(heads, 1)})
        found, model = weights.state(path), {**layers.state_dict(), **branches.state_dict()}
        weights.check_coverage(path, model, model.keys() - found.keys(), found.keys() - model.keys())
        for part in (layers, branches):
            part.load_state_dict({name: found[name] for name in part.state_dict()})
        self.trunk, self.heads = nn.Sequential(*layers.values()), nn.ModuleList(branches.values())
        self.eval()

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """(N, 3, H, W) levels 0 to 255, red first → probability of a face, and what the other heads say."""
        x = self.trunk((x - 127.5) / 128)
        first, *others = (head(x) for head in self.heads)
        return first.softmax(1)[:, 1], *others


class _Columns(nn.Module):
    """(N, C, H, W) → (N, W · H · C): the order in which the weights were learned."""

    def forward(self, x: Tensor) -> Tensor:
        return x.permute(0, 3, 2, 1).flatten(1)


def _pool(side: int) -> nn.Module:
    return nn.MaxPool2d(side, 2, ceil_mode=True)


def proposer(path: Path) -> Network:
    """Windows of 12 pixels, a step of 2 apart: (N, 3, H, W) → (N, h, w), moves (N, 4, h, w)."""
    trunk = {
        "conv1": nn.Conv2d(3, 10, 3), "prelu1": nn.PReLU(10), "pool1": _pool(2),
        "conv2": nn.Conv2d(10, 16, 3), "prelu2": nn.PReLU(16),
        "conv3": nn.Conv2d(16, 32, 3), "prelu3": nn.PReLU(32),
    }  # fmt: skip
    return Network(path, trunk, nn.Conv2d(32, 2, 1), nn.Conv2d(32, 4, 1))


def refiner(path: Path) -> Network:
    """(N, 3, 24, 24) → (N,), moves (N, 4)."""
    trunk = {
        "conv1": nn.Conv2d(3, 28, 3), "prelu1": nn.PReLU(28), "pool1": _pool(3),
        "conv2": nn.Conv2d(28, 48, 3), "prelu2": nn.PReLU(48), "pool2": _pool(3),
        "conv3": nn.Conv2d(48, 64, 2), "prelu3": nn.PReLU(64), "columns": _Columns(),
        "dense4": nn.Linear(576, 128), "prelu4": nn.PReLU(128),
    }  # fmt: skip
    return Network(path, trunk, nn.Linear(128, 2), nn.Linear(128, 4))


def finisher(path: Path) -> Network:
    """(N, 3, 48, 48) → (N,), moves (N, 4), points (N, 10): x of eyes, nose and corners of the mouth, then y."""
    trunk = {
        "conv1": nn.Conv2d(3, 32, 3), "prelu1": nn.PReLU(32), "pool1": _pool(3),
        "conv2": nn.Conv2d(32, 64, 3), "prelu2": nn.PReLU(64), "pool2": _pool(3),
        "conv3": nn.Conv2d(64, 64, 3), "prelu3": nn.PReLU(64), "pool3": _pool(2),
        "conv4": nn.Conv2d(64, 128, 2), "prelu4": nn.PReLU(128), "columns": _Columns(),
        "dense5": nn.Linear(1152, 256), "prelu5": nn.PReLU(256),
    }  # fmt: skip
    return Network(path, trunk, nn.Linear(256, 2), nn.Linear(256, 4), nn.Linear(256, 10))
