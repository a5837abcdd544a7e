"""The incremental sampler beside one forward pass per pixel, and beside the time of its own matrix products.

    python -m benchmarks.sampler

The slow side is extrapolated: the time of one whole forward pass, multiplied by the positions of a map. The lower bound
is the same products on operands that are ready in memory, with nothing between them: those of PIXELS_PER_ROW pixels of
every row, and the products of a row as often as belongs to that share of a map, scaled up to the whole.
"""

from typing import Any

import torch
import torch.nn.functional as F

from benchmarks.timing import Figure, report_figures, time_alternately
from components.priors.conditioning import MapSpec
from components.priors.config import PriorArchitecture
from components.priors.model import Prior
from components.priors.sampler import Sampler

SIZES: dict[str, Any] = {"hidden": 128, "residual_hidden": 128, "layers": 10, "filter_size": 5}
TOP, BOTTOM = "32x32, 2 attention layers", "64x64 below 32x32, 4 conditioning blocks"
LEAST_SPEEDUP = {(TOP, 1): 100, (TOP, 16): 450, (TOP, 64): 600, (BOTTOM, 1): 550, (BOTTOM, 16): 3500}
"""Bars of the sampler against a forward pass per pixel, by prior and batch."""
MOST_OVERHEAD = {1: 5, 16: 1.6, 64: 1.4}
"""Bars of the sampler against its own products, by batch."""
CLASSES, CODES, PIXELS_PER_ROW = 10, 512, 4


def main() -> None:
    """Measure, print, write benchmarks/results."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    top = Prior(
        PriorArchitecture(**SIZES, attention_layers=2), shape=(32, 32), codebook_size=CODES, classes=CLASSES, above=()
    )
    above = (MapSpec(32, 32, CODES),)
    bottom = Prior(
        PriorArchitecture(**SIZES, conditioning_layers=4),
        shape=(64, 64),
        codebook_size=CODES,
        classes=CLASSES,
        above=above,
    )
    figures = []
    for name, prior in ((TOP, top.eval()), (BOTTOM, bottom.eval())):
        for batch in (1, 16, 64):
            if (name, batch) in LEAST_SPEEDUP:
                figures += measure_sampler(name, prior, batch)
    report_figures("sampler", figures)


@torch.no_grad()
def measure_sampler(name: str, prior: Prior, batch: int) -> list[Figure]:
    """Both ratios and the rate of one prior and batch."""
    codes, labels = torch.randint(CODES, (batch, *prior.shape)), torch.arange(batch) % CLASSES
    maps = [torch.randint(CODES, (batch, spec.height, spec.width)) for spec in prior.above]
    sampler, seeds = Sampler(prior, batch), torch.arange(batch)
    works = {
        "forward": lambda: prior(codes, labels, maps),
        "sample": lambda: sampler.sample(labels, maps, seeds),
        "products": lambda: run_products(sampler),
    }
    seconds = time_alternately(works, rounds=3)
    (height, width), lower_bound = prior.shape, seconds["products"] * prior.shape[1] / PIXELS_PER_ROW
    label = f"{name}, batch {batch}: "
    faster = seconds["forward"] * height * width / seconds["sample"]
    return [
        Figure(
            name=label + "forward per pixel / sampler", value=faster, least=LEAST_SPEEDUP[name, batch], seconds=seconds
        ),
        Figure(name=label + "sampler / its products", value=seconds["sample"] / lower_bound, most=MOST_OVERHEAD[batch]),
        Figure(name=label + "images per second", value=batch / seconds["sample"], unit="images/s"),
    ]


def run_products(sampler: Sampler) -> None:
    """The fraction PIXELS_PER_ROW / columns of all products of one batch."""
    height, width = sampler.prior.shape
    fraction = PIXELS_PER_ROW / width
    for row in range(height):
        for _ in range(PIXELS_PER_ROW):
            run_pixel_products(sampler, row)
        if int((row + 1) * fraction) > int(row * fraction):
            run_row_products(sampler)


def run_row_products(sampler: Sampler) -> None:
    """Matrix products and filters of one row."""
    flat, gated = sampler.row_state.flatten(0, 1), sampler.gated_row.flatten(0, 1)
    if sampler.prior.conditioning is not None:
        context = sampler.row_context.flatten(0, 2)
        torch.mm(context, sampler.context_weight, out=sampler.context.view(len(context), -1))
    for index, layer in enumerate(sampler.layers):
        F.conv2d(layer.above.permute(0, 3, 1, 2), layer.filter)
        torch.mm(gated, layer.vertical_out, out=flat)
        torch.mm(flat, layer.link, out=sampler.terms[index].flatten(0, 1))


def run_pixel_products(sampler: Sampler, row: int) -> None:
    """Matrix products of one pixel of `row`."""
    product = torch.mm
    for index, layer in enumerate(sampler.layers):
        if index:
            product(sampler.filter_inputs[index], layer.horizontal, out=sampler.gates[index].whole)
        product(sampler.gated, layer.horizontal_out, out=sampler.states[index + 1])
        if index in sampler.attention:
            attention = sampler.attention[index]
            keys, values, scores, _ = attention.rows[row]
            product(attention.normed, attention.project, out=attention.projected)
            torch.bmm(attention.queries, keys, out=scores)
            torch.bmm(scores, values, out=attention.mixed)
            product(attention.mixed.view(attention.normed.shape), attention.out, out=sampler.states[index + 1])
    product(sampler.states[-1], sampler.logits_weight, out=sampler.out)


if __name__ == "__main__":
    main()
