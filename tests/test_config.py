"""Every setting is on one of two sides: it determines the result, or only how the result is made."""

import dataclasses

import pytest

from components.config import Execution, field_sides, result_settings, to_plain
from pipeline.config import PipelineConfig
from pipeline.config_files import load_config

RESULT = {
    "PipelineConfig": "name seed images vqvae codes priors classifier judge generator evaluation",
    "ImagesConfig": "source uri labels key_column image_column label_column inspect held_out test image_size channels "
    "upscale background augment",
    "AugmentConfig": "copies degrees scale shift flip",
    "VQVAEConfig": "levels hidden residual_hidden residual_layers quantizer decay beta restart_below prefix_share "
    "training",
    "LevelConfig": "name stride codebook_size code_width",
    "TrainingConfig": "updates batch_size learning_rate warmup_updates final_rate gradient_clip weight_ema precision "
    "channels_last compile evaluate_every held_out_samples patience",
    "CodesConfig": "rows_per_shard batch_size precision",
    "PriorConfig": "hidden residual_hidden layers filter_size attention_layers attention_placement attention_heads "
    "output_layers conditioning_layers label_dropout dropout training",
    "ClassifierConfig": "hidden stages dropout seed program training",
    "GeneratorConfig": "temperature top_k top_p guidance keep",
    "EvaluationConfig": "samples real_images keep shares features lpips neighbours manifold_images "
    "cas_updates cas_batch_size pictures",
}
EXECUTION = {
    "PipelineConfig": "artifact_root state gates resources orchestration",
    "ImagesConfig": "max_rejects",
    "TrainingConfig": "checkpoint_every",
    "CodesConfig": "rows_per_wave",
    "PriorConfig": "recompute",
    "Gates": "reconstruction_error codebook_usage nats_share judge_accuracy kept_accuracy",
    "Orchestration": "schedule time_zone retries retry_delay lease_wait tracking_wait autoscale_wait",
    "Resources": "tokenizer codes prior classifier",
    "StepResources": "workers cpus gpus readers",
}


def config_types(value):
    """The classes of a config and of all configs inside it."""
    if dataclasses.is_dataclass(value):
        yield type(value)
        for child in dataclasses.fields(value):
            yield from config_types(getattr(value, child.name))
    elif isinstance(value, dict):
        for child in value.values():
            yield from config_types(child)
    elif isinstance(value, tuple):
        for child in value:
            yield from config_types(child)


def test_every_field_of_every_section_is_listed_on_its_side():
    sides = {kind.__name__: field_sides(kind) for kind in set(config_types(load_config("digits")))}
    listed = {
        name: dict.fromkeys(RESULT.get(name, "").split(), "result")
        | dict.fromkeys(EXECUTION.get(name, "").split(), "execution")
        for name in RESULT.keys() | EXECUTION.keys()
    }
    assert sides == listed


def test_fingerprints_contain_only_settings_of_the_result():
    config = load_config("digits")
    settings = result_settings(config)
    assert set(settings) == set(RESULT["PipelineConfig"].split())
    assert "checkpoint_every" not in settings["vqvae"]["training"] and "max_rejects" not in settings["images"]
    assert "recompute" not in settings["priors"]["top"]
    assert to_plain(config)["vqvae"]["training"]["checkpoint_every"] == config.vqvae.training.checkpoint_every


def test_a_class_of_both_sides_must_not_declare_fields():
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Undecided(PipelineConfig):
        verbose: bool = False

    with pytest.raises(TypeError, match=r"Undecided joins settings of both sides .* got \['verbose'\]"):
        field_sides(Undecided)


def test_a_new_execution_setting_is_in_no_fingerprint():
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Recipe:
        size: int = 1

    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Threads(Execution):
        threads: int = 2

    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Both(Threads, Recipe):
        pass

    assert result_settings(Both()) == {"size": 1} and to_plain(Both()) == {"size": 1, "threads": 2}
