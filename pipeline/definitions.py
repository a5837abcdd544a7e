"""What the orchestrator loads: the assets, job and schedule of ONE config, named by VQVAE2_CONFIG."""

import json
import logging
import os
import warnings
from pathlib import Path

import dagster as dg

from components.config import to_plain
from pipeline.assets import assets_of
from pipeline.config import PipelineConfig
from pipeline.config_files import load_config, parse_config
from pipeline.session import Session

warnings.filterwarnings("ignore", category=dg.BetaWarning)

CONFIG_VARIABLE = "VQVAE2_CONFIG"
"""Environment variable with the preset's name or the config file that this deployment runs."""
JOB = "vqvae2"


def definitions_of(config: PipelineConfig, session: Session | None = None) -> dg.Definitions:
    """Assets, the job that makes them in one process, and the schedule if the config has one."""
    job = dg.define_asset_job(
        JOB, selection=dg.AssetSelection.all(), executor_def=dg.in_process_executor, tags={"config": config.name}
    )
    schedules = []
    if config.orchestration.schedule:
        schedules.append(
            dg.ScheduleDefinition(
                name="scheduled",
                job=job,
                cron_schedule=config.orchestration.schedule,
                execution_timezone=config.orchestration.time_zone,
                default_status=dg.DefaultScheduleStatus.RUNNING,
            )
        )
    return dg.Definitions(
        assets=assets_of(config, session or Session(config)),
        jobs=[job],
        schedules=schedules,
        executor=dg.in_process_executor,
    )


def materialise(config: PipelineConfig, session: Session) -> bool:
    """One run of the DAG on the orchestrator's instance, in this process; returns whether all of it succeeded."""
    warnings.filterwarnings("ignore", module="dagster")
    os.environ.setdefault("DAGSTER_DISABLE_TELEMETRY", "1")
    logging.getLogger("dagster").setLevel(logging.CRITICAL)
    with dg.DagsterInstance.from_config(str(instance_folder(config))) as instance:
        job = definitions_of(config, session).get_job_def(JOB)
        quiet = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
        try:
            return job.execute_in_process(instance=instance, raise_on_error=False, run_config=quiet).success
        except dg.DagsterExecutionInterruptedError:  # Ctrl-C between two steps
            session.failure = KeyboardInterrupt()
            return False


def instance_folder(config: PipelineConfig) -> Path:
    """Folder of the orchestrator's instance, created with its settings (telemetry off) when it is new."""
    folder = Path(os.environ.get("DAGSTER_HOME") or Path(config.state).absolute() / "dagster")
    folder.mkdir(parents=True, exist_ok=True)
    settings = folder / "dagster.yaml"
    if not settings.exists():
        settings.write_text(
            "telemetry:\n  enabled: false\n"
            "run_monitoring:\n  enabled: true\n"
            "run_retries:\n  enabled: true\n  max_retries: 3\n"
        )
    return folder


def write_config(config: PipelineConfig) -> Path:
    """Write the resolved config where the orchestrator's processes find it; returns the file."""
    path = Path(config.state).absolute() / "config.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(to_plain(config), indent=1))
    return path


def _load() -> dg.Definitions:
    source = os.environ.get(CONFIG_VARIABLE, "digits")
    path = Path(source)
    if path.suffix == ".json" and path.is_file():
        return definitions_of(parse_config(json.loads(path.read_text()), source))
    return definitions_of(load_config(source))


def __getattr__(name: str) -> dg.Definitions:
    """Makes `defs` when the orchestrator asks for it, so that importing this module reads no config."""
    if name == "defs":
        return _load()
    raise AttributeError(name)
