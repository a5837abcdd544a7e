"""A prior fitted for a few updates samples the distribution of its training codes."""

import torch

from components.priors.conditioning import MapSpec
from components.priors.config import SamplingConfig
from components.priors.model import Prior
from components.priors.objective import PriorObjective
from components.priors.sampler import Sampler
from components.training.batches import CodeBatch


def fit(prior: Prior, batch: CodeBatch, updates: int) -> float:
    objective = PriorObjective(prior, dimensions=1).train()
    optimizer = torch.optim.Adam(prior.parameters(), 1e-2)
    for _ in range(updates):
        optimizer.zero_grad()
        loss, _ = objective(batch)
        loss.backward()
        optimizer.step()
    prior.eval()
    return objective.eval()(batch)[0].item()


def test_maps_that_the_class_decides(build_prior):
    labels = torch.arange(30) % 3
    prior = build_prior((4, 4), attention_layers=1, dropout=0.1)
    loss = fit(prior, CodeBatch(((labels * 2)[:, None, None].expand(-1, 4, 4),), labels), 80)
    assert loss < 0.05
    codes = Sampler(prior, 30, SamplingConfig(temperature=0.5)).sample(labels, (), torch.arange(30))
    assert torch.equal(codes, (labels * 2)[:, None, None].expand(-1, 4, 4))


def test_maps_that_the_map_above_decides(build_prior):
    top = torch.randint(4, (64, 2, 2), generator=torch.Generator().manual_seed(0))
    bottom = top.repeat_interleave(2, 1).repeat_interleave(2, 2)
    prior = build_prior((4, 4), (MapSpec(2, 2, 4),), conditioning_layers=1)
    assert fit(prior, CodeBatch((top, bottom), torch.zeros(64).long()), 120) < 0.05
    codes = Sampler(prior, 16, SamplingConfig(temperature=0.5)).sample(
        torch.zeros(16).long(), [top[:16]], torch.arange(16)
    )
    assert torch.equal(codes, bottom[:16])


def test_first_code_drawn_and_all_others_copied_from_it(build_prior):
    maps = (torch.arange(60) % 3)[:, None, None].expand(-1, 3, 3)
    prior = build_prior((3, 3), filter_size=5, classes=0)
    loss = fit(prior, CodeBatch((maps,), torch.full((60,), -1)), 120)
    assert abs(loss - torch.tensor(3.0).log().item() / 9) < 0.02  # one of three at the first position, nothing after
    codes = Sampler(prior, 90, SamplingConfig(temperature=0.8)).sample(torch.zeros(90).long(), (), torch.arange(90))
    constant = (codes.flatten(1) == codes[:, 0, :1]).all(dim=1)
    assert constant.float().mean() > 0.95
    assert torch.bincount(codes[:, 0, 0], minlength=7)[:3].min() > 15


def test_no_class_is_learnt_by_label_dropout(build_prior):
    labels = torch.arange(30) % 3
    prior = build_prior((2, 2), label_dropout=0.3)
    fit(prior, CodeBatch(((labels * 2)[:, None, None].expand(-1, 2, 2),), labels), 120)
    codes = Sampler(prior, 200).sample(torch.full((200,), 3), (), torch.arange(200))
    counts = torch.bincount(codes[:, 0, 0], minlength=7)
    assert counts[[0, 2, 4]].sum() > 190 and counts[[0, 2, 4]].min() > 35
