"""`validate`: whether a config is right and fits its images, before anything starts."""

from collections.abc import Sequence

from components.errors import ExitCode
from pipeline.config import config_digest
from pipeline.config_files import load_config


def validate_pipeline(source: str, overrides: Sequence[str], *, offline: bool) -> int:
    """Check a config and, unless `offline`, its images; raises ConfigError with the faults.

    Faults of settings are reported first, all at once: nothing is looked up for a config that has any.
    """
    config = load_config(source, overrides)
    if not offline:
        from pipeline.dag import outputs_of
        from pipeline.verbs.look import look_at_images

        if look := look_at_images(config.images, source, outputs_of(config)):
            print("\n".join(look.describe()))
    print(f"schedule: {config.orchestration.describe_schedule()}")
    print(f"{source} is valid (digest {config_digest(config)[:12]})")
    return ExitCode.DONE
