"""A tiny evaluation: settings, and running the step in this process or on a cluster."""

from types import SimpleNamespace

from components.config import StepResources
from components.evaluation.config import EvaluationConfig
from tests.generator.committed import workspace_in

CONFIG = EvaluationConfig(
    samples=18, keep=0.5, shares=(0.25, 1.0), neighbours=2, pictures=4, cas_updates=2, cas_batch_size=8
)


def run_evaluation(root, inputs, name, config=CONFIG, cluster=None):
    """Output of the step; its artifact is in `root` / `name`."""
    from components.evaluation.step import evaluate_generator

    models = SimpleNamespace(run_link=lambda run: f"http://host/{run}")
    workspace = workspace_in(root, name, models=models, connect=lambda: cluster)
    return evaluate_generator(
        config, inputs, title="a test", settings="seed: 3", resources=StepResources(workers=2), workspace=workspace
    )
