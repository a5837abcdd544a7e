"""Quality gates: limits that an artifact's facts must meet. Pure functions of facts and limits."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from components.codes.facts import CodesFacts
from components.evaluation.facts import EvaluationFacts
from components.priors.facts import PriorFacts
from components.tokenizer.facts import TokenizerFacts
from pipeline.config import Gates


@dataclass(frozen=True)
class Verdict:
    """Result of one gate."""

    gate: str
    passed: bool
    value: float
    limit: float
    meaning: str

    def __str__(self) -> str:
        relation = "within" if self.passed else "beyond"
        return f"{self.gate}: {self.meaning} is {self.value:.4g}, {relation} the limit of {self.limit:.4g}"


@dataclass(frozen=True, kw_only=True)
class Gate:
    """One limit on one figure of a step."""

    name: str
    meaning: str
    figure: Callable[[Any], float | None]
    """The figure, from the step's facts; None where it does not exist: the gate then has no say."""
    limit: Callable[[Any], float]
    """The limit, which may depend on the facts too."""
    at_most: bool
    """Whether the limit is the largest value that passes; False: the smallest."""

    def judge(self, facts: Any) -> Verdict | None:
        """Compare the figure of `facts` with the limit; None where there is no figure."""
        value, limit = self.figure(facts), self.limit(facts)
        if value is None:
            return None
        return Verdict(self.name, value <= limit if self.at_most else value >= limit, value, limit, self.meaning)


def summarise_verdicts(verdicts: Sequence[Verdict]) -> str:
    """'passed', or 'failed: ...' with every gate that failed."""
    failed = [str(verdict) for verdict in verdicts if not verdict.passed]
    return "failed: " + "; ".join(failed) if failed else "passed"


def tokenizer_gates(limits: Gates) -> tuple[Gate, ...]:
    """Reconstructions must be close to the images."""

    def figure(facts: TokenizerFacts) -> float:
        return facts.reconstruction_error

    return (_at_most("reconstruction_error", "held-out mean squared error", figure, limits.reconstruction_error),)


def codes_gates(limits: Gates, levels: Sequence[str]) -> tuple[Gate, ...]:
    """Each codebook must be used."""

    def usage_of(level: str) -> Callable[[CodesFacts], float]:
        return lambda facts: facts.usage[level]

    return tuple(
        _at_least(
            f"usage_{level}", f"fraction of the '{level}' codebook in use", usage_of(level), limits.codebook_usage
        )
        for level in levels
    )


def prior_gates(limits: Gates) -> tuple[Gate, ...]:
    """A prior must predict codes better than their frequencies do."""

    def figure(facts: PriorFacts) -> float:
        return facts.nats_per_code

    def limit(facts: PriorFacts) -> float:
        return limits.nats_share * facts.unigram_nats

    meaning = "held-out nats per code"
    return (Gate(name="nats_per_code", meaning=meaning, figure=figure, limit=limit, at_most=True),)


def evaluation_gates(limits: Gates) -> tuple[Gate, ...]:
    """The judge must recognise samples, before and after rejection, where there are classes to recognise."""

    def drawn(facts: EvaluationFacts) -> float | None:
        return facts.judge_accuracy

    def kept(facts: EvaluationFacts) -> float | None:
        return facts.kept_accuracy

    meaning = "fraction of samples read as the class asked for"
    return (
        _at_least("judge_accuracy", meaning, drawn, limits.judge_accuracy),
        _at_least("kept_accuracy", f"{meaning}, after rejection", kept, limits.kept_accuracy),
    )


def _at_most(name: str, meaning: str, figure: Callable[[Any], float | None], limit: float) -> Gate:
    return Gate(name=name, meaning=meaning, figure=figure, limit=lambda facts: limit, at_most=True)


def _at_least(name: str, meaning: str, figure: Callable[[Any], float | None], limit: float) -> Gate:
    return Gate(name=name, meaning=meaning, figure=figure, limit=lambda facts: limit, at_most=False)
