"""From logits to codes, without allocating. Shapes: n images, k codebook size."""

import torch
from torch import Tensor

from components.priors.config import SamplingConfig


class LogitFilter:
    """Applies `sampling`, except guidance, to logits of n images and k codes, in buffers allocated once."""

    def __init__(self, sampling: SamplingConfig, like: Tensor) -> None:
        """`like` (n, k) has the shape, type and device of the logits to come."""
        self.sampling = sampling
        n, k = like.shape
        # A tensor, because dividing by a Python number allocates one at each call.
        self.temperature = like.new_tensor(sampling.temperature)  # scalar
        self.scores = torch.empty_like(like)  # n k
        self.removed = torch.empty_like(like, dtype=torch.bool)  # n k
        self.top_scores = like.new_empty(n, min(sampling.top_k, k))  # n top_k
        self.top_codes = torch.empty_like(self.top_scores, dtype=torch.int64)  # n top_k
        self.sorted, self.probabilities, self.preceding = (torch.empty_like(like) for _ in range(3))  # n k each
        self.order = torch.empty_like(like, dtype=torch.int64)  # n k
        self.threshold = like.new_empty(n, 1)  # n 1

    def filtered(self, logits: Tensor) -> Tensor:
        """Guided logits (n, k) -> scores (n, k) to draw from, -inf where a code is left out.

        The result is a buffer that the next call overwrites.
        """
        sampling, scores = self.sampling, torch.div(logits, self.temperature, out=self.scores)  # n k
        if 0 < sampling.top_k < scores.shape[1]:
            torch.topk(scores, sampling.top_k, dim=1, out=(self.top_scores, self.top_codes))  # n top_k
            self._remove_below(self.top_scores[:, -1:])  # n 1: the k-th best score; ties with it stay
        if sampling.top_p < 1:
            torch.sort(scores, dim=1, descending=True, out=(self.sorted, self.order))  # n k, best first
            torch.softmax(self.sorted, dim=1, out=self.probabilities)  # n k
            # A code stays while the codes before it have less than top_p together. The first one always stays, because
            # nothing comes before it.
            torch.cumsum(self.probabilities, dim=1, out=self.preceding).sub_(self.probabilities)  # n k
            torch.ge(self.preceding, sampling.top_p, out=self.removed)  # n k, in sorted order
            self.sorted.masked_fill_(self.removed, torch.inf)  # so that the minimum is the lowest score that stays
            self._remove_below(torch.amin(self.sorted, dim=1, keepdim=True, out=self.threshold))  # n 1
        return scores

    def draw(self, logits: Tensor, noise: Tensor, out: Tensor) -> None:
        """Write codes, int64 (n,), into `out`: the argmax of filtered logits + Gumbel noise (n, k).

        This is an exact draw from the softmax of the filtered logits (the Gumbel-max trick).
        """
        torch.argmax(self.filtered(logits).add_(noise), dim=1, out=out)  # n

    def _remove_below(self, threshold: Tensor) -> None:
        """Set scores below `threshold` (n, 1) to -inf."""
        self.scores.masked_fill_(torch.lt(self.scores, threshold, out=self.removed), -torch.inf)
