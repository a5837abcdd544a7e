"""The command line: `python -m pipeline <verb>`. Only this file reads argv. Verbs are imported when they run."""

import argparse
import os
import sys
from collections.abc import Sequence

from components.errors import ExitCode, exit_code_of
from components.images.config import BUNDLED_SOURCES, SOURCE_SUMMARIES
from pipeline.exits import exit_code_table, report_error
from pipeline.signals import run_asked, run_interrupted
from pipeline.surroundings import bypass_proxies_on_loopback, print_any_name


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb; returns its exit code."""
    bypass_proxies_on_loopback()
    print_any_name()
    options = build_parser().parse_args(arguments)
    run = run_asked if getattr(options, "holds_leases", False) else run_interrupted
    try:
        return run(lambda: int(options.verb(options) or ExitCode.DONE))
    except KeyboardInterrupt as stop:
        print("\nstopped: the same command continues from the last checkpoint", file=sys.stderr)
        return exit_code_of(stop)
    except BrokenPipeError:  # the reader of the output closed the pipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the flush at exit must not fail again
        return ExitCode.DONE
    except Exception as error:
        if options.traceback:
            raise
        return report_error(error)


# --- the parser -------------------------------------------------------------------------------------------------------


def build_parser() -> argparse.ArgumentParser:
    """The parser of all verbs."""
    parser = argparse.ArgumentParser(
        prog="python -m pipeline",
        description="VQ-VAE-2 as a pipeline: images -> tokenizer -> codes -> priors -> generator -> evaluation.",
        epilog=exit_code_table(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verbs = parser.add_subparsers(title="verbs", metavar="<verb>", required=True)
    _add_config_verbs(verbs)
    _add_model_verbs(verbs)
    _add_codes_verbs(verbs)
    _add_feature_verbs(verbs)
    return parser


def _add_verb(
    verbs: "argparse._SubParsersAction[argparse.ArgumentParser]", name: str, help: str
) -> argparse.ArgumentParser:
    parser = verbs.add_parser(
        name,
        help=help,
        description=help,
        epilog=exit_code_table(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--traceback", action="store_true", help="print the traceback of an error")
    return parser


def _add_config(parser: argparse.ArgumentParser, required: bool = True) -> argparse.ArgumentParser:
    help = "a preset (digits, folder, imagenet256, ffhq1024) or a YAML file"
    if required:
        parser.add_argument("config", help=help)
    else:
        parser.add_argument("config", help=f"{help} (default: %(default)s)", nargs="?", default="digits")
    return _add_overrides(parser, "override one setting; may be repeated")


def _add_overrides(parser: argparse.ArgumentParser, help: str) -> argparse.ArgumentParser:
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="section.key=value", help=help)
    return parser


def _add_state(
    parser: argparse.ArgumentParser, overrides_help: str = "override one setting of the config"
) -> argparse.ArgumentParser:
    parser.add_argument(
        "--state",
        default="runs",
        help="local state folder, used where MLFLOW_TRACKING_URI is not set (default: %(default)s)",
    )
    return _add_overrides(parser, overrides_help)


def _add_config_verbs(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    plan = _add_config(
        _add_verb(verbs, "plan", "show the resolved config, shapes, sizes, resources, what is done and what would run")
    )
    plan.add_argument("--offline", action="store_true", help="do not look at the images, nor up what is done")
    plan.set_defaults(verb=_plan)
    validate = _add_config(
        _add_verb(verbs, "validate", "check a config and look at its images; report all faults, starting nothing")
    )
    validate.add_argument("--offline", action="store_true", help="do not look at the images")
    validate.set_defaults(verb=_validate)
    run = _add_verb(verbs, "run", "run the pipeline; finished steps are skipped, interrupted ones continue")
    _add_config(run).set_defaults(verb=_run, holds_leases=True)
    status = _add_verb(verbs, "status", "show the state of each step, runs and registered models")
    _add_config(status, required=False).set_defaults(verb=_status)
    results = _add_verb(verbs, "results", "print the results card of the newest run as Markdown tables")
    _add_config(results, required=False).set_defaults(verb=_results)
    ui = _add_verb(verbs, "ui", "open the orchestrator's UI (with scheduler) on this pipeline")
    _add_config(ui, required=False)
    ui.add_argument("--host", default="127.0.0.1", help="address to bind (default: %(default)s)")
    ui.add_argument("--port", type=int, default=3000, help="port to bind (default: %(default)s)")
    ui.set_defaults(verb=_ui)
    doctor = _add_verb(verbs, "doctor", "check what is installed, reachable and writable")
    _add_config(doctor, required=False).set_defaults(verb=_doctor)


def _add_model_verbs(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    sample = _add_verb(verbs, "sample", "draw images from a generator: a grid and single PNG files")
    sample.add_argument(
        "model",
        help="models:/<name>/<version>, models:/<name>@<alias>, a registered name, or a config (its newest run)",
    )
    sample.add_argument("--classes", default="", help="comma-separated class names (default: all)")
    sample.add_argument("--count", type=int, default=10, help="images per class (default: %(default)s)")
    sample.add_argument(
        "--seed", type=int, default=0, help="the same seed gives the same images (default: %(default)s)"
    )
    _add_sampling(sample)
    sample.add_argument(
        "--like", help="an image file: keep its codes of all levels but the lowest, draw the lowest again"
    )
    sample.add_argument("--out", default="samples", help="folder to write (default: %(default)s)")
    _add_state(sample).set_defaults(verb=_sample)
    reconstruct = _add_verb(verbs, "reconstruct", "encode and decode image files: a picture of both")
    reconstruct.add_argument(
        "model", help="a registered tokenizer (models:/...), its name, or a config (its newest run)"
    )
    reconstruct.add_argument("images", help="an image file, or a folder of them")
    reconstruct.add_argument("--out", default="reconstruction.png", help="PNG to write (default: %(default)s)")
    _add_state(reconstruct).set_defaults(verb=_reconstruct)
    lineage = _add_verb(verbs, "lineage", "follow a registered model back to codes, tokenizer and image snapshot")
    lineage.add_argument("model", help="models:/<name>/<version>, models:/<name>@<alias>, or a registered name")
    _add_state(lineage).set_defaults(verb=_lineage)


def _add_sampling(sample: argparse.ArgumentParser) -> None:
    """One option per field of SamplingConfig, and one for rejection."""
    default = "(default: the model's own)"
    sample.add_argument("--temperature", type=float, help=f"divides the logits {default}")
    sample.add_argument(
        "--top-k", type=int, help=f"sample from the K most likely codes; 0 samples from all {default}", metavar="K"
    )
    sample.add_argument(
        "--top-p",
        type=float,
        help=f"sample from the most likely codes that together have this probability {default}",
        metavar="P",
    )
    sample.add_argument(
        "--guidance", type=float, help=f"how far to follow the class: 1 as fitted, above 1 further {default}"
    )
    sample.add_argument(
        "--keep", type=float, help=f"fraction of the draws that the classifier keeps, in (0, 1] {default}"
    )


def _add_codes_verbs(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    encode = _add_verb(verbs, "encode", "encode all images of a source to a code dataset; encoded images are skipped")
    encode.add_argument(
        "tokenizer",
        help="a folder with a tokenizer, a registered one (models:/...), its name, or a config (its newest run)",
    )
    encode.add_argument("images", help="where the images are: a path, s3://bucket/prefix or any fsspec URL")
    encode.add_argument("output", help="where the dataset goes: into <output>/<tokenizer digest>/")
    sources = [name for name in SOURCE_SUMMARIES if name not in BUNDLED_SOURCES]
    encode.add_argument(
        "--source",
        default="files",
        choices=sources,
        help=f"{'; '.join(f'{name}: {SOURCE_SUMMARIES[name]}' for name in sources)} (default: %(default)s)",
    )
    encode.add_argument("--labels", default=None, help="CSV or Parquet table of labels for --source files")
    overrides = "override images.<setting>, codes.<setting> or resources.<setting>"
    _add_state(encode, overrides).set_defaults(verb=_encode, holds_leases=True)
    verify = _add_verb(verbs, "verify", "read a code dataset back and report everything that is wrong with it")
    verify.add_argument("folder", help="a code dataset, or a folder of them")
    verify.add_argument("--repair", action="store_true", help="encode again what is wrong, and nothing else")
    verify = _add_overrides(verify, "for --repair: override codes.<setting> or resources.<setting>")
    verify.set_defaults(verb=_verify, holds_leases=True)
    show = _add_verb(verbs, "show", "show a code dataset: counts, codebook usage, bytes per image, rejects")
    show.add_argument("folder", help="a code dataset, or a folder of them")
    show.set_defaults(verb=_show)


def _add_feature_verbs(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    features = _add_verb(verbs, "features", "make feature extractors for the evaluation, and reference statistics")
    kinds = features.add_subparsers(title="what to make", metavar="<kind>", required=True)
    inception = _add_verb(kinds, "inception", "export the Inception network of FID, KID, IS, precision and recall")
    inception.add_argument("weights", help="weights-inception-2015-12-05-6726825d.pth, which you downloaded")
    inception.add_argument("out", help="program to write (.pt2)")
    inception.set_defaults(verb=_features_inception)
    dinov2 = _add_verb(kinds, "dinov2", "export DINOv2")
    dinov2.add_argument("weights", help="dinov2_vitl14_pretrain.pth or another size's, which you downloaded")
    dinov2.add_argument("out", help="program to write (.pt2)")
    dinov2.set_defaults(verb=_features_dinov2)
    lpips = _add_verb(kinds, "lpips", "export LPIPS, a perceptual distance of two images")
    lpips.add_argument("weights", help="LPIPS' own weights for VGG-16 (vgg.pth of version 0.1)")
    lpips.add_argument("vgg_weights", help="VGG-16's weights (vgg16-397923af.pth)")
    lpips.add_argument("out", help="program to write (.pt2)")
    lpips.set_defaults(verb=_features_lpips)
    statistics = _add_verb(kinds, "statistics", "write mean and covariance of features of the training images")
    _add_config(statistics).add_argument("out", help="statistics to write (.npz)")
    statistics.add_argument("--features", required=True, help="name of an extractor in evaluation.features")
    statistics.add_argument("--images", help="an image file or folder instead of the newest run's training images")
    statistics.set_defaults(verb=_features_statistics)


# --- verbs: each imports what it needs --------------------------------------------------------------------------------


def _plan(options: argparse.Namespace) -> int:
    from pipeline.verbs.plan import print_plan

    return print_plan(options.config, options.overrides, offline=options.offline)


def _validate(options: argparse.Namespace) -> int:
    from pipeline.verbs.validate import validate_pipeline

    return validate_pipeline(options.config, options.overrides, offline=options.offline)


def _run(options: argparse.Namespace) -> int:
    from pipeline.verbs.run import run_pipeline

    return run_pipeline(options.config, options.overrides)


def _status(options: argparse.Namespace) -> int:
    from pipeline.verbs.status import print_status

    return print_status(options.config, options.overrides)


def _results(options: argparse.Namespace) -> int:
    from pipeline.verbs.results import print_results

    return print_results(options.config, options.overrides)


def _ui(options: argparse.Namespace) -> int:
    from pipeline.verbs.ui import serve_ui

    return serve_ui(options.config, options.overrides, host=options.host, port=options.port)


def _doctor(options: argparse.Namespace) -> int:
    from pipeline.verbs.doctor import run_doctor

    return run_doctor(options.config, options.overrides)


def _sample(options: argparse.Namespace) -> int:
    from pipeline.verbs.sample import sample_model

    return sample_model(options)


def _reconstruct(options: argparse.Namespace) -> int:
    from pipeline.verbs.reconstruct import reconstruct_images

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


def _features_inception(options: argparse.Namespace) -> int:
    from pipeline.verbs.features import write_inception

    return write_inception(options)


def _features_dinov2(options: argparse.Namespace) -> int:
    from pipeline.verbs.features import write_dinov2

    return write_dinov2(options)


def _features_lpips(options: argparse.Namespace) -> int:
    from pipeline.verbs.features import write_lpips

    return write_lpips(options)


def _features_statistics(options: argparse.Namespace) -> int:
    from pipeline.verbs.features import write_statistics

    return write_statistics(options)
