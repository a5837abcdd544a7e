"""Estimates of time and memory, compared with real fits, with counts by hand, and with the memory of a real update."""

import dataclasses
import subprocess
import sys
import time

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from components.config import StepResources
from components.training.loop import FitData, SilentObserver, fit_objective
from pipeline import costs
from pipeline.config_files import load_config
from pipeline.costs import CPU_RATE, GPU_RATES, encode_seconds, fit_costs

FOLDER = ["images.uri=/data", "images.image_size=32"]


def by_name(found):
    return {cost.name: cost for cost in found}


def with_gpus(config, gpus):
    resources = StepResources(gpus=gpus)
    chosen = dataclasses.replace(
        config.resources, tokenizer=resources, prior=resources, codes=resources, classifier=resources
    )
    return dataclasses.replace(config, resources=chosen)


def test_every_fit_of_a_config_has_a_cost(config_file):
    found = fit_costs(load_config(config_file), 3, measure=False)
    assert [cost.name for cost in found] == ["tokenizer", "prior_top", "prior_bottom", "classifier", "judge"]
    assert all(cost.seconds > 0 and cost.memory > 0 and not cost.measured for cost in found)


def test_images_without_classes_need_no_classifier_and_a_judge_of_rotations(config_file):
    config = load_config(config_file)
    with_classes = by_name(fit_costs(config, 4, measure=False))
    without = by_name(fit_costs(config, 0, measure=True))
    assert set(with_classes) - set(without) == {"classifier"} and all(cost.measured for cost in without.values())
    rotated = by_name(fit_costs(config, 0, measure=False))["judge"]
    assert rotated.seconds == pytest.approx(4 * with_classes["judge"].seconds)  # each image in four rotations


def test_a_counted_prior_has_the_operations_of_the_real_one(config_file):
    fit = costs._fits(load_config(config_file), 3)[2]
    objective, batch = fit.build(), fit.batch(1)
    with FlopCounterMode(display=False) as counter:
        objective(batch)
    assert costs._trace(fit)[0] == counter.get_total_flops() > 0


def test_a_stated_time_is_operations_by_rate_times_updates(config_file):
    """A classifier of one stage, counted by hand: a product and a sum for each weight and position."""
    config = load_config(config_file, ["judge.stages=1", "judge.training.evaluate_every=100"])  # 2 updates of 4 images
    c = 4  # channels; maps are 8x8 after the first convolution, 4x4 inside the stage
    stem, stage, head = 8 * 8 * 16 * c, 4 * 4 * (9 * c * c + 9 * c * 2 * c + c * 2 * c), 2 * c * 3
    judge = by_name(fit_costs(config, 3, measure=False))["judge"]
    assert judge.seconds_per_image == pytest.approx(3 * 2 * (stem + stage + head) / CPU_RATE)
    assert judge.seconds == pytest.approx(8 * judge.seconds_per_image)


def test_gpus_that_are_not_here_are_counted_at_their_stated_rate(config_file, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    config = load_config(config_file)
    on_cpus = by_name(fit_costs(config, 3, measure=False))
    on_gpus = by_name(fit_costs(with_gpus(config, 1), 3, measure=True))
    for name, cost in on_gpus.items():
        assert (
            cost.seconds == pytest.approx(on_cpus[name].seconds * CPU_RATE / GPU_RATES["float32"]) and not cost.measured
        )


def test_models_too_large_to_try_are_not_timed(monkeypatch):
    monkeypatch.setattr(costs, "_seconds_per_image", lambda *_: pytest.fail("timed"))
    config = load_config("imagenet256", ["images.uri=/data"])
    priors = [fit for fit in costs._fits(with_gpus(config, 0), 10) if fit.name.startswith("prior_")]
    assert [costs._cost(fit, True).measured for fit in priors] == [False, False]


def test_memory_is_counted_for_each_worker(config_file):
    config = load_config(config_file, ["priors.top.training.batch_size=64"])
    half = load_config(config_file, ["priors.top.training.batch_size=64", "resources.prior.workers=2"])
    whole, shared = (by_name(fit_costs(each, 3, measure=False))["prior_top"] for each in (config, half))
    weights = 4 * sum(weight.numel() for weight in costs._fits(config, 3)[1].build().parameters())
    assert whole.memory - 5 * weights == 2 * (shared.memory - 5 * weights) > 0
    assert whole.seconds == pytest.approx(2 * shared.seconds)


def test_encoding_is_a_forward_pass_of_the_tokenizer(config_file):
    found = fit_costs(load_config(config_file), 3, measure=False)
    assert encode_seconds(found, 600, 2) == pytest.approx(100 * by_name(found)["tokenizer"].seconds_per_image)


def test_timing_leaves_threads_and_random_numbers_as_they_were(config_file):
    torch.manual_seed(0)
    expected, threads = torch.rand(3), torch.get_num_threads()
    torch.manual_seed(0)
    assert all(cost.measured for cost in fit_costs(load_config(config_file), 3, measure=True))
    assert torch.equal(torch.rand(3), expected) and torch.get_num_threads() == threads


@pytest.mark.slow
@pytest.mark.parametrize("number", [0, 2, 3], ids=["tokenizer", "prior_bottom", "classifier"])
def test_an_estimate_is_within_a_factor_of_two_of_a_real_fit(number):
    """Real fits with their evaluations, in the processor's time: other programs on this machine do not count."""
    short = ("updates=24", "evaluate_every=12", "held_out_samples=64", "batch_size=16")
    names = ("vqvae", "priors.top", "priors.bottom", "classifier")
    config = load_config("folder", FOLDER + [f"{name}.training.{each}" for name in names for each in short])
    fit = costs._fits(with_gpus(config, 0), 10)[number]
    batch = fit.batch(16)
    data = FitData(batches=lambda first: iter([batch] * 24), held_out=lambda: [batch] * 4)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    started = time.process_time()
    fit_objective(fit.build(), config=fit.training, seed=0, data=data, observer=SilentObserver())
    seconds = time.process_time() - started
    torch.set_num_threads(threads)
    assert 0.5 < costs._cost(fit, True).seconds / seconds < 2


MEASURE = r"""
import pathlib, re, sys, torch
from components.training.loop import FitData, SilentObserver, fit_objective
from pipeline import costs
from pipeline.config_files import load_config
torch.set_num_threads(1)
config = load_config("folder", sys.argv[2:])
fit = costs._fits(config, 10)[int(sys.argv[1])]
def status(name):
    return 1024 * int(re.search(name + r":\s+(\d+)", pathlib.Path("/proc/self/status").read_text())[1])
before = status("VmRSS")
pathlib.Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
batch = fit.batch(fit.images)
data = FitData(batches=lambda first: iter([batch] * 3), held_out=lambda: [fit.batch(1)])
fit_objective(fit.build(), config=fit.training, seed=0, data=data, observer=SilentObserver())
print(status("VmHWM") - before)
"""
"""Prints the bytes by which three updates raise the peak memory of a process of their own."""


@pytest.mark.slow
@pytest.mark.parametrize(("number", "name"), [(0, "tokenizer"), (2, "prior_bottom")])
def test_memory_is_within_a_factor_of_two_of_a_process_that_fits(number, name):
    overrides = ["images.uri=/data", "vqvae.training.updates=3", "priors.bottom.training.updates=3"]
    overrides.append("priors.bottom.training.batch_size=16")
    command = [sys.executable, "-c", MEASURE, str(number), *overrides]
    grown = int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert 0.5 < by_name(fit_costs(load_config("folder", overrides), 10, measure=False))[name].memory / grown < 2
