"""The command line: `python -m pipeline <verb>`. Alone reads argv; imports nothing heavy until a verb runs."""

import argparse
import os
import sys
from collections.abc import Sequence

OK, FAILED, USAGE, GATE, UNREACHABLE, HELD, STOPPED = 0, 1, 2, 3, 4, 5, 130
EXIT_CODES = """exit codes:
  0  done
  1  a step failed
  2  the config or the command line is wrong
  3  a quality gate failed: the artifact is there but does not count as good
  4  a server, a bucket or the cluster does not answer, or is too small
  5  another run holds the lease on a step
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb; returns its exit code."""
    options = _parser().parse_args(arguments)
    try:
        return int(options.verb(options) or OK)
    except KeyboardInterrupt:
        print("\nstopped: the same command goes on from the last checkpoint", file=sys.stderr)
        return STOPPED
    except BrokenPipeError:  # the reader of our output went away
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OK
    except Exception as error:
        if options.traceback:
            raise
        print(f"error: {error}" if str(error) else f"error: {type(error).__name__}", file=sys.stderr)
        code = exit_code(error)
        if code == FAILED:
            print("(--traceback shows where it came from)", file=sys.stderr)
        return code


def exit_code(error: BaseException) -> int:
    """The exit code that stands for `error`."""
    codes = {
        "ConfigError": USAGE,
        "UsageError": USAGE,
        "NotFound": USAGE,
        "NotMade": USAGE,
        "TrackingError": UNREACHABLE,
        "StorageError": UNREACHABLE,
        "ConnectionError": UNREACHABLE,
        "TooFewResources": UNREACHABLE,
        "LeaseHeld": HELD,
    }
    return next((codes[kind.__name__] for kind in type(error).__mro__ if kind.__name__ in codes), FAILED)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m pipeline",
        description="VQ-VAE-2 as a pipeline: images -> tokenizer -> codes -> priors -> generator -> evaluation.",
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verbs = parser.add_subparsers(title="verbs", metavar="<verb>", required=True)
    _add_config_verbs(verbs)
    _add_model_verbs(verbs)
    _add_codes_verbs(verbs)
    return parser


def _verb(
    verbs: "argparse._SubParsersAction[argparse.ArgumentParser]", name: str, help: str
) -> argparse.ArgumentParser:
    parser = verbs.add_parser(
        name, help=help, description=help, epilog=EXIT_CODES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--traceback", action="store_true", help="show the traceback of an error")
    return parser


def _with_config(parser: argparse.ArgumentParser, needed: bool = True) -> argparse.ArgumentParser:
    default = {} if needed else {"nargs": "?", "default": "digits"}
    parser.add_argument("config", help="a preset (digits, folder, imagenet256, ffhq1024) or a YAML file", **default)  # type: ignore[arg-type]
    return _set(parser, "override one setting; may be repeated")


def _add_config_verbs(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    plan = _with_config(
        _verb(verbs, "plan", "show the resolved config, shapes, sizes, resources, what is done and what would run")
    )
    plan.add_argument("--offline", action="store_true", help="do not look up what is done")
    plan.set_defaults(verb=_plan)
    _with_config(_verb(verbs, "validate", "check a config and report all its faults, starting nothing")).set_defaults(
        verb=_validate
    )
    _with_config(
        _verb(verbs, "run", "run the pipeline; what is done is skipped, what was interrupted goes on")
    ).set_defaults(verb=_run)
    _with_config(
        _verb(verbs, "status", "show the state of each step, runs and registered models"), needed=False
    ).set_defaults(verb=_status)
    ui = _with_config(_verb(verbs, "ui", "open the orchestrator's UI (with scheduler) on this pipeline"), needed=False)
    ui.add_argument("--host", default="127.0.0.1", help="address to bind (default: %(default)s)")
    ui.add_argument("--port", type=int, default=3000, help="port to bind (default: %(default)s)")
    ui.set_defaults(verb=_ui)
    _with_config(_verb(verbs, "doctor", "check what is installed, reachable and writable"), needed=False).set_defaults(
        verb=_doctor
    )


def _add_model_verbs(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    sample = _verb(verbs, "sample", "draw images from a generator: a grid and single PNG files")
    sample.add_argument(
        "model",
        help="models:/<name>/<version>, models:/<name>@<alias>, a registered name, or a config (its newest run)",
    )
    sample.add_argument("--classes", default="", help="comma-separated class names (default: all)")
    sample.add_argument("--count", type=int, default=10, help="images a class (default: %(default)s)")
    sample.add_argument(
        "--seed", type=int, default=0, help="the same seed gives the same images (default: %(default)s)"
    )
    own = "(default: the model's own)"
    sample.add_argument("--temperature", type=float, help=f"divides the logits {own}")
    sample.add_argument(
        "--top-k", type=int, help=f"draw each code from the K likeliest; 0: from all {own}", metavar="K"
    )
    sample.add_argument("--top-p", type=float, help=f"draw from the likeliest with this probability {own}", metavar="P")
    sample.add_argument(
        "--guidance", type=float, help=f"how far to follow the class: 1 as fitted, above 1 further {own}"
    )
    sample.add_argument(
        "--keep",
        type=float,
        help=f"share of the draw that the classifier keeps, in (0, 1] {own}",
    )
    sample.add_argument(
        "--like", help="an image file: keep its codes of all levels but the lowest, draw the lowest anew"
    )
    sample.add_argument("--out", default="samples", help="folder to write (default: %(default)s)")
    _where(sample).set_defaults(verb=_sample)
    reconstruct = _verb(verbs, "reconstruct", "encode and decode image files: a side by side picture")
    reconstruct.add_argument(
        "model", help="a registered tokenizer (models:/...), its name, or a config (its newest run)"
    )
    reconstruct.add_argument("images", help="an image file, or a folder of them")
    reconstruct.add_argument("--out", default="reconstruction.png", help="PNG to write (default: %(default)s)")
    _where(reconstruct).set_defaults(verb=_reconstruct)
    lineage = _verb(verbs, "lineage", "walk from a registered model back to codes, tokenizer and image snapshot")
    lineage.add_argument("model", help="models:/<name>/<version>, models:/<name>@<alias>, or a registered name")
    _where(lineage).set_defaults(verb=_lineage)


def _add_codes_verbs(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    encode = _verb(verbs, "encode", "encode all images of a source to a code dataset; what is encoded already stays")
    encode.add_argument(
        "tokenizer",
        help="a folder with a tokenizer, a registered one (models:/...), its name, or a config (its newest run)",
    )
    encode.add_argument("images", help="where the images lie: a path, s3://bucket/prefix or any fsspec URL")
    encode.add_argument("output", help="where the dataset goes: into <output>/<tokenizer digest>/")
    encode.add_argument(
        "--source",
        default="files",
        choices=("files", "folder", "webdataset", "parquet"),
        help="files: any tree; folder: a folder a class; webdataset: tars; parquet: tables (default: %(default)s)",
    )
    encode.add_argument("--labels", default=None, help="CSV or Parquet table of labels for --source files")
    _where(encode, "override images.<setting>, codes.<setting> or resources.<setting>").set_defaults(verb=_encode)
    verify = _verb(verbs, "verify", "read a code dataset back and say precisely what is wrong with it")
    verify.add_argument("folder", help="a code dataset, or a folder of them")
    verify.add_argument("--repair", action="store_true", help="encode again just what is wrong")
    _set(verify, "for --repair: override codes.<setting> or resources.<setting>").set_defaults(verb=_verify)
    show = _verb(verbs, "show", "show a code dataset: counts, codebook usage, bytes an image, rejects")
    show.add_argument("folder", help="a code dataset, or a folder of them")
    show.set_defaults(verb=_show)


def _where(
    parser: argparse.ArgumentParser, overrides: str = "override one setting of the config"
) -> argparse.ArgumentParser:
    parser.add_argument(
        "--state",
        default="runs",
        help="local state folder, where MLFLOW_TRACKING_URI is not set (default: %(default)s)",
    )
    return _set(parser, overrides)


def _set(parser: argparse.ArgumentParser, help: str) -> argparse.ArgumentParser:
    metavar = "section.key=value"
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar=metavar, help=help)
    return parser


# --- verbs: each imports what it needs --------------------------------------------------------------------------------


def _plan(options: argparse.Namespace) -> int:
    from pipeline.verbs.plan import print_plan

    return print_plan(options.config, options.overrides, offline=options.offline)


def _validate(options: argparse.Namespace) -> int:
    from pipeline.config import config_digest, load_config

    config = load_config(options.config, options.overrides)
    print(f"{options.config} is valid (digest {config_digest(config)[:12]})")
    return OK


def _run(options: argparse.Namespace) -> int:
    from pipeline.verbs.run import run_pipeline

    return run_pipeline(options.config, options.overrides)


def _status(options: argparse.Namespace) -> int:
    from pipeline.verbs.status import print_status

    return print_status(options.config, options.overrides)


def _ui(options: argparse.Namespace) -> int:
    from pipeline.verbs.ui import serve_ui

    return serve_ui(options.config, options.overrides, host=options.host, port=options.port)


def _doctor(options: argparse.Namespace) -> int:
    from pipeline.verbs.doctor import run_doctor

    return run_doctor(options.config, options.overrides)


def _sample(options: argparse.Namespace) -> int:
    from pipeline.verbs.use import sample_model

    return sample_model(options)


def _reconstruct(options: argparse.Namespace) -> int:
    from pipeline.verbs.use import reconstruct_images

    return reconstruct_images(options)


def _lineage(options: argparse.Namespace) -> int:
    from pipeline.verbs.lineage import print_lineage

    return print_lineage(options)


def _encode(options: argparse.Namespace) -> int:
    from pipeline.verbs.codes import encode_images

    return encode_images(options)


def _verify(options: argparse.Namespace) -> int:
    from pipeline.verbs.codes import verify_datasets

    return verify_datasets(options)


def _show(options: argparse.Namespace) -> int:
    from pipeline.verbs.codes import show_datasets

    return show_datasets(options)
