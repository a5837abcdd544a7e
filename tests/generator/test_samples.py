"""Samples in chunks: requests are split, chunks are joined in the order of the request, and progress is reported."""

import torch

from components.generator.samples import DrawRequest, Samples, join_chunks

LABELS, SEEDS = torch.tensor([0, 1, 2, 1, 0]), torch.tensor([7, -3, 2**62, 0, 8])


def equal_samples(first, second):
    pairs = [(first.pixels, second.pixels), (first.labels, second.labels), (first.seeds, second.seeds)]
    pairs += [*zip(first.maps, second.maps, strict=True), (first.probability, second.probability)]
    return all(torch.equal(left, right) for left, right in pairs)


def test_joined_parts_equal_the_whole(generator):
    samples = generator.sample(LABELS, SEEDS)
    assert equal_samples(Samples.join([samples.take(torch.arange(2)), samples.take(torch.arange(2, 5))]), samples)


def test_a_request_is_split_with_its_given_codes():
    maps = torch.arange(20).view(5, 2, 2)
    chunks = DrawRequest(LABELS, SEEDS, (maps,)).split(2)
    assert [len(chunk) for chunk in chunks] == [2, 2, 1]
    assert torch.equal(torch.cat([chunk.seeds for chunk in chunks]), SEEDS)
    assert torch.equal(torch.cat([chunk.given[0] for chunk in chunks]), maps)


def test_chunks_that_arrive_in_any_order_are_joined_by_number(generator):
    whole = generator.sample(LABELS, SEEDS, batch=2)
    parts = [whole.take(torch.arange(start, stop)) for start, stop in ((0, 2), (2, 4), (4, 5))]
    reports = []
    joined = join_chunks([(2, parts[2]), (0, parts[0]), (1, parts[1])], 5, lambda *counts: reports.append(counts))
    assert equal_samples(joined, whole)
    assert reports == [(0, 5), (1, 5), (3, 5), (5, 5)]


def test_a_draw_reports_each_chunk(generator):
    reports = []
    generator.sample(LABELS, SEEDS, batch=2, report=lambda *counts: reports.append(counts))
    assert reports == [(0, 5), (2, 5), (4, 5), (5, 5)]
