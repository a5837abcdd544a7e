"""The whole state of a fit as files: tensors in safetensors, numbers in JSON, no pickle.

state.safetensors   weights.<name>, average.<name>, best.<name>, adam.<slot>.<name>
state.json          update, best loss, evaluations without a better one; and the SHA-256 of state.safetensors
"""

import hashlib
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

STATE_TENSORS, STATE_NUMBERS = "state.safetensors", "state.json"


@dataclass
class FitProgress:
    """Progress of a fit."""

    update: int = 0
    """Updates made."""
    best_loss: float = float("inf")
    """Lowest held-out loss so far."""
    best_update: int = 0
    """Update at which it was measured."""
    worse: int = 0
    """Evaluations since then, none of them better."""
    finished: bool = False
    held_out: dict[str, float] = field(default_factory=dict)
    """Held-out metrics at best_update."""
    final: dict[str, dict[str, float]] = field(default_factory=dict)
    """Metrics of the best weights on other samples, by the name of these (FitData.final); empty before the end."""


TENSORS_DIGEST = "tensors_sha256"
"""Field of state.json beside those of FitProgress."""


def read_fit_progress(folder: Path) -> FitProgress:
    """What `FitState.save` wrote into state.json."""
    return parse_fit_progress((folder / STATE_NUMBERS).read_bytes())[0]


def parse_fit_progress(data: bytes) -> tuple[FitProgress, str]:
    """Progress, and the SHA-256 of the tensors that belong to it, from the content of state.json.

    Raises ValueError or TypeError for other content; the digest is empty in states of earlier versions.
    """
    record = json.loads(data)
    digest = record.pop(TENSORS_DIGEST, "")
    return FitProgress(**record), digest


def is_whole_state(folder: Path) -> bool:
    """Whether `folder` holds both files of one `save`, not cut and not mixed from two."""
    try:
        _, digest = parse_fit_progress((folder / STATE_NUMBERS).read_bytes())
        return digest in ("", _sha256(folder / STATE_TENSORS))
    except (OSError, ValueError, TypeError):
        return False


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class FitState:
    """Weights, their moving average, the best weights and Adam's moments, by name."""

    def __init__(self, objective: nn.Module, optimizer: torch.optim.Adam, weight_ema: float) -> None:
        self.fit_progress = FitProgress()
        self._objective, self._optimizer, self._decay = objective, optimizer, weight_ema
        self.average = (
            {name: value.detach().clone() for name, value in objective.named_parameters()} if weight_ema else {}
        )
        self.best: dict[str, Tensor] = {}

    @torch.no_grad()
    def update_average(self) -> None:
        """average <- d average + (1 - d) weights, with d rising as (1 + t) / (10 + t) at the start."""
        if not self._decay:
            return
        # A smaller decay at the start: the average must forget the random initial weights.
        decay = min(self._decay, (1 + self.fit_progress.update) / (10 + self.fit_progress.update))
        parameters = dict(self._objective.named_parameters())
        names = list(self.average)
        # One call for all parameters, not one per parameter.
        torch._foreach_lerp_([self.average[name] for name in names], [parameters[name] for name in names], 1 - decay)

    @torch.no_grad()
    def swap_average(self) -> None:
        """Exchange the weights with their average: call before and after an evaluation."""
        parameters = dict(self._objective.named_parameters())
        for name, value in self.average.items():
            weights = parameters[name].detach().clone()
            parameters[name].copy_(value)
            value.copy_(weights)

    def keep_best(self) -> None:
        """Copy the current weights to `best` (between two swaps, these are the averaged ones)."""
        self.best = {name: value.detach().clone() for name, value in self._objective.state_dict().items()}

    def save(self, folder: Path) -> None:
        """Write both files into `folder`."""
        tensors = {f"weights.{name}": value for name, value in self._objective.state_dict().items()}
        tensors |= {f"average.{name}": value for name, value in self.average.items()}
        tensors |= {f"best.{name}": value for name, value in self.best.items()}
        for name, parameter in self._objective.named_parameters():
            for slot, value in self._optimizer.state[parameter].items():
                tensors[f"adam.{slot}.{name}"] = torch.as_tensor(value)
        # Clones, because safetensors refuses tensors that share memory.
        save_file(
            {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}, folder / STATE_TENSORS
        )
        record = asdict(self.fit_progress) | {TENSORS_DIGEST: _sha256(folder / STATE_TENSORS)}
        (folder / STATE_NUMBERS).write_text(json.dumps(record))

    def load(self, folder: Path) -> None:
        """Continue from what `save` wrote, bit for bit."""
        self.fit_progress = read_fit_progress(folder)
        groups: dict[str, dict[str, Tensor]] = {"weights": {}, "average": {}, "best": {}, "adam": {}}
        for name, value in load_file(folder / STATE_TENSORS).items():
            group, rest = name.split(".", 1)
            groups[group][rest] = value
        self._objective.load_state_dict(groups["weights"])
        device = next(self._objective.parameters()).device
        self.average = {name: value.to(device) for name, value in groups["average"].items()}
        self.best = {name: value.to(device) for name, value in groups["best"].items()}
        for name, parameter in self._objective.named_parameters():
            # Names contain dots and may end like one another: both the suffix and the rest must match.
            slots = {
                key.removesuffix(f".{name}"): value
                for key, value in groups["adam"].items()
                if key.endswith(f".{name}") and key.split(".", 1)[1] == name
            }
            if slots:
                self._optimizer.state[parameter] = {
                    slot: value if slot == "step" else value.to(device)  # Adam counts on the CPU
                    for slot, value in slots.items()
                }
