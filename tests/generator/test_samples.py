"""Samples in chunks: split, drawn in any order, joined in the first order, reported."""

import torch

from components.generator.samples import DrawRequest, Samples, join_chunks
from components.generator.sampling_progress import show_sampling
from components.progress import Progress

LABELS, SEEDS = torch.tensor([0, 1, 2, 1, 0]), torch.tensor([7, -3, 2**62, 0, 8])


def equal(first, second):
    pairs = [(first.pixels, second.pixels), (first.labels, second.labels), (first.seeds, second.seeds)]
    pairs += [*zip(first.maps, second.maps, strict=True), (first.probability, second.probability)]
    return all(torch.equal(one, other) for one, other in pairs)


def test_joined_parts_are_the_whole(generator):
    samples = generator.sample(LABELS, SEEDS)
    assert equal(Samples.join([samples.take(torch.arange(2)), samples.take(torch.arange(2, 5))]), samples)


def test_a_request_is_split_with_its_given_codes():
    maps = torch.arange(20).view(5, 2, 2)
    chunks = DrawRequest(LABELS, SEEDS, (maps,)).split(2)
    assert [len(chunk) for chunk in chunks] == [2, 2, 1]
    assert torch.equal(torch.cat([chunk.seeds for chunk in chunks]), SEEDS)
    assert torch.equal(torch.cat([chunk.given[0] for chunk in chunks]), maps)


def test_chunks_are_joined_by_their_number_whatever_order_they_come_in(generator):
    whole = generator.sample(LABELS, SEEDS, batch=2)
    parts = [whole.take(torch.arange(start, stop)) for start, stop in ((0, 2), (2, 4), (4, 5))]
    reports = []
    joined = join_chunks([(2, parts[2]), (0, parts[0]), (1, parts[1])], 5, lambda *counts: reports.append(counts))
    assert equal(joined, whole)
    assert reports == [(0, 5), (1, 5), (3, 5), (5, 5)]


def test_a_draw_reports_each_chunk(generator):
    reports = []
    generator.sample(LABELS, SEEDS, batch=2, report=lambda *counts: reports.append(counts))
    assert reports == [(0, 5), (2, 5), (4, 5), (5, 5)]


def test_a_shown_draw_ends_with_its_last_image(capsys):
    report = show_sampling(Progress())
    for drawn in (0, 2, 5):
        report(drawn, 5)
    lines = capsys.readouterr().out.splitlines()
    assert "0/5 images" in lines[0] and "5/5 images" in lines[-1]
