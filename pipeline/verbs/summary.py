"""What a run says at its end: what was made, how good it is, where the pictures are, what to open next."""

import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from components.progress import format_duration
from components.store import objects
from components.tracking.runs import without_password
from pipeline.session import Session


def print_summary(session: Session, source: str, overrides: Sequence[str], seconds: float) -> None:
    """Print the summary of a run that succeeded; `source` and `overrides` are what the user typed."""
    name, results = session.config.name, session.memo.results
    made = ", ".join(step for step, result in results.items() if result.made)
    print(
        f"\n{name}: {f'made {made}' if made else 'nothing to do, all was done before'} ({format_duration(seconds)})\n"
    )
    for title, text in _figures(session):
        print(f"  {title:<13} {text}")
    print("\npictures and report")
    for path in (_report(session), *sorted(session.folder().glob("*.png"))):
        print(f"  {path}")
    print("\nregistered models")
    for kind in ("tokenizer", "generator"):
        model = session.tracker.registered(f"{name}-{kind}", results[kind].artifact.digest)
        if model:
            print(f"  {model.uri}  ({', '.join(model.aliases)})")
    print("\nlook further")
    for title, command in _commands(session, source, overrides):
        print(f"  {title:<16} {command}")


def _commands(session: Session, source: str, overrides: Sequence[str]) -> Iterator[tuple[str, str]]:
    python = os.path.relpath(sys.executable) if Path(sys.executable).is_relative_to(Path.cwd()) else sys.executable
    asked = " ".join([source, *(f"--set '{override}'" for override in overrides)])
    uri, generator = without_password(session.tracker.uri), f"models:/{session.config.name}-generator@champion"
    yield "MLflow UI", uri if uri.startswith("http") else f"{python} -m mlflow ui --backend-store-uri {uri} --port 5000"
    yield "orchestrator UI", f"{python} -m pipeline ui {asked}"
    yield "samples", f"{python} -m pipeline sample {generator} --count 8 --keep 0.25"
    yield "lineage", f"{python} -m pipeline lineage {generator}"


def _figures(session: Session) -> Iterator[tuple[str, str]]:
    facts = {name: result.artifact.facts for name, result in session.memo.results.items()}
    images, tokenizer, codes = facts["images"], facts["tokenizer"], facts["codes"]
    split = f"{images['train_images']:,} to train on, {images['held_out']:,} held out"
    yield "images", f"{images['images']:,} ({split}), {images['rows']:,} rows with augmented copies"
    yield "tokenizer", f"held-out error {tokenizer['reconstruction_error']:.4f}, PSNR {tokenizer['psnr']:.1f} dB"
    usage = ", ".join(f"{level} {codes[f'usage_{level}']:.0%}" for level in session.config.level_names)
    size = f"{codes['rows']:,} rows in {codes['shards']} shards, {codes['bytes_per_image']:.0f} bytes an image"
    yield "codes", f"{size}; codebooks in use: {usage}"
    for level in session.config.level_names:
        nats, entropy = facts[f"prior_{level}"]["nats_per_code"], facts[f"prior_{level}"]["unigram_nats"]
        yield f"prior {level}", f"held-out {nats:.3f} nats a code (unigram entropy {entropy:.3f})"
    accuracy = {name: facts[name]["held_out_accuracy"] for name in ("classifier", "judge")}
    yield "classifiers", f"held-out accuracy {accuracy['classifier']:.1%}, judge {accuracy['judge']:.1%}"
    drawn, kept = facts["evaluation"]["judge_accuracy"], facts["evaluation"]["kept_accuracy"]
    share = session.config.evaluation.keep
    yield "samples", f"{drawn:.1%} read as the class asked for; {kept:.1%} after keeping the best {share:.0%}"


def _report(session: Session) -> Path:
    """Copy the evaluation's report page to where the pictures are."""
    path = session.folder() / "report.html"
    path.write_bytes(objects.read_bytes(objects.join(session.artifact("evaluation").uri, "report.html")))
    return path
