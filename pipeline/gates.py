"""Quality gates: pure functions of an artifact's facts and the config's thresholds."""

from collections.abc import Mapping
from dataclasses import dataclass

from components.artifacts import Fact
from pipeline.config import Gates, PipelineConfig


@dataclass(frozen=True)
class Verdict:
    """One gate's answer."""

    gate: str
    passed: bool
    value: float
    limit: float
    meaning: str

    def __str__(self) -> str:
        relation = "within" if self.passed else "beyond"
        return f"{self.gate}: {self.meaning} is {self.value:.4g}, {relation} the limit of {self.limit:.4g}"


def gate_names(step: str, config: PipelineConfig) -> list[str]:
    """Gates that `step` has."""
    if step == "tokenizer":
        return ["reconstruction_error"]
    if step == "codes":
        return [f"usage_{level}" for level in config.level_names]
    if step.startswith("prior_"):
        return ["nats_per_code"]
    if step == "evaluation":
        return ["judge_accuracy", "kept_accuracy"]
    return []


def verdicts(step: str, facts: Mapping[str, Fact], config: PipelineConfig) -> list[Verdict]:
    """Judge an artifact of `step` by its facts."""
    limits: Gates = config.gates
    if step == "tokenizer":
        return [
            _at_most(
                "reconstruction_error",
                facts["reconstruction_error"],
                limits.reconstruction_error,
                "held-out mean squared error",
            )
        ]
    if step == "codes":
        return [
            _at_least(
                f"usage_{level}",
                facts[f"usage_{level}"],
                limits.codebook_usage,
                f"share of the '{level}' codebook in use",
            )
            for level in config.level_names
        ]
    if step.startswith("prior_"):
        limit = limits.nats_share * _number(facts["unigram_nats"])
        return [_at_most("nats_per_code", facts["nats_per_code"], limit, "held-out nats per code")]
    if step == "evaluation":
        return [
            _at_least(
                "judge_accuracy",
                facts["judge_accuracy"],
                limits.judge_accuracy,
                "share of samples read as the class asked for",
            ),
            _at_least("kept_accuracy", facts["kept_accuracy"], limits.kept_accuracy, "the same after rejection"),
        ]
    return []


def summarise_verdicts(found: list[Verdict]) -> str:
    """'passed', or 'failed: ...' with every gate that did."""
    failed = [str(verdict) for verdict in found if not verdict.passed]
    return "failed: " + "; ".join(failed) if failed else "passed"


def _number(value: Fact) -> float:
    if not isinstance(value, (int, float)):
        raise TypeError(f"a gate's figure must be a number, got {value!r}")
    return float(value)


def _at_most(gate: str, value: Fact, limit: float, meaning: str) -> Verdict:
    return Verdict(gate, _number(value) <= limit, _number(value), limit, meaning)


def _at_least(gate: str, value: Fact, limit: float, meaning: str) -> Verdict:
    return Verdict(gate, _number(value) >= limit, _number(value), limit, meaning)
