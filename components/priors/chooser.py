"""From logits to codes, without allocating. Shapes: n images, k codebook size."""

import torch
from torch import Tensor

from components.priors.choice import SamplingConfig


class LogitFilter:
    """`choice` applied to up to n images of k codes, in memory that is kept."""

    def __init__(self, choice: SamplingConfig, like: Tensor) -> None:
        """`like` (n, k) says size, type and device."""
        self.choice = choice
        n, k = like.shape
        self.temperature = like.new_tensor(choice.temperature)
        self.scores = torch.empty_like(like)
        self.removed = torch.empty_like(like, dtype=torch.bool)
        self.best = like.new_empty(n, min(choice.top_k, k))
        self.places = torch.empty_like(self.best, dtype=torch.int64)
        self.sorted, self.shares, self.before = (torch.empty_like(like) for _ in range(3))
        self.order = torch.empty_like(like, dtype=torch.int64)
        self.least = like.new_empty(n, 1)

    def filtered(self, logits: Tensor) -> Tensor:
        """Guided logits (n, k) -> logits of what is drawn from, -inf where a code is left out; kept until the next."""
        choice, scores = self.choice, torch.div(logits, self.temperature, out=self.scores)
        if 0 < choice.top_k < scores.shape[1]:
            torch.topk(scores, choice.top_k, dim=1, out=(self.best, self.places))
            self._remove_below(self.best[:, -1:])
        if choice.top_p < 1:
            torch.sort(scores, dim=1, descending=True, out=(self.sorted, self.order))
            torch.softmax(self.sorted, dim=1, out=self.shares)
            # A code stays while those before it have less than top_p together: the first always does.
            torch.cumsum(self.shares, dim=1, out=self.before).sub_(self.shares)
            self.sorted.masked_fill_(torch.ge(self.before, choice.top_p, out=self.removed), torch.inf)
            self._remove_below(torch.amin(self.sorted, dim=1, keepdim=True, out=self.least))
        return scores

    def draw(self, logits: Tensor, noise: Tensor, out: Tensor) -> None:
        """Codes int64 (n,) into `out`: argmax of filtered logits + Gumbel noise (n, k), an exact draw."""
        torch.argmax(self.filtered(logits).add_(noise), dim=1, out=out)

    def _remove_below(self, least: Tensor) -> None:
        self.scores.masked_fill_(torch.lt(self.scores, least, out=self.removed), -torch.inf)
