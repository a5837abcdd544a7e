"""The model registry: versions of registered models, found by URI or by the digest of their artifact.

A version carries the tag vqvae2.digest (digest of the artifact that it was made from) and the alias `challenger`;
`promote` gives it the alias `champion`.
"""

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow

from components.errors import UnknownModel
from components.tracking.server import TrackingServer, default_store, without_mlflow_output, without_password

DIGEST_TAG = "vqvae2.digest"
CODE_PACKAGE = Path(__file__).parents[1]
"""The package `components`: stored with each model, because its served.py imports from it."""


@dataclass(frozen=True, kw_only=True)
class ModelPackage:
    """What a registered model consists of: code, weights and an example request; no pickle."""

    code: Path
    """The file that MLflow runs to build the model (components/*/served.py)."""
    folders: Mapping[str, Path]
    """Folders of stored models that the code loads, by name."""
    example: Any
    """Input of one request: MLflow derives the model's signature from it."""
    parameters: Mapping[str, Any]
    """Parameters of a request with their defaults; empty when it takes none."""
    requirements: Sequence[str]
    """Packages to install where the model is served, as pip reads them."""


@dataclass(frozen=True)
class RegisteredModel:
    """One version in the registry."""

    name: str
    version: str
    uri: str
    """models:/<name>/<version>."""
    run_id: str
    """MLflow run that registered it; empty when it was registered without one."""
    aliases: tuple[str, ...]


class ModelRegistry:
    """The registered models of one tracking server."""

    def __init__(self, server: TrackingServer) -> None:
        self._server, self._client = server, server.client

    def register(self, *, name: str, package: ModelPackage, run_id: str, digest: str) -> RegisteredModel:
        """Register `package` as a new version of model `name`, with the alias `challenger`.

        Args:
            name: registered model's name; created when it does not exist.
            package: what the model consists of.
            run_id: MLflow run that the version belongs to: the run that made the artifact.
            digest: of the artifact; a version with the same digest is returned instead of registering another.
        """
        return self._server.patiently(lambda: self._register(name, package, run_id, digest))

    def _register(self, name: str, package: ModelPackage, run_id: str, digest: str) -> RegisteredModel:
        if (registered := self._version_of(name, digest)) is not None:
            return registered
        version = self._unmarked_version(name, run_id) or self._log_model(name, package, run_id)
        self._client.set_registered_model_alias(name, "challenger", version)
        self._client.set_model_version_tag(name, version, DIGEST_TAG, digest)  # last: it says that all is done
        return self._version(name, version)

    def _unmarked_version(self, name: str, run_id: str) -> str | None:
        """The version that a call registered for this run before it was interrupted."""
        versions = self._client.search_model_versions(f"name = '{name}'")
        of_run = (each for each in versions if each.run_id == run_id and DIGEST_TAG not in each.tags)
        return next((str(version.version) for version in of_run), None)

    def _log_model(self, name: str, package: ModelPackage, run_id: str) -> str:
        example, parameters = package.example, dict(package.parameters)
        with (
            self._server.lock,  # MLflow's active run and store exist once per process
            default_store(self._server.uri),
            mlflow.start_run(run_id=run_id),
            without_mlflow_output(),
            tempfile.TemporaryDirectory() as folder,
        ):
            info = mlflow.pyfunc.log_model(
                name=name,
                python_model=str(package.code),
                artifacts={part: str(path) for part, path in package.folders.items()},
                code_paths=[str(_copy_of_code(Path(folder)))],
                input_example=(example, parameters) if parameters else example,
                pip_requirements=list(package.requirements),
                registered_model_name=name,
            )
        return str(info.registered_model_version)

    def version_of(self, name: str, digest: str) -> RegisteredModel | None:
        """The version of model `name` made from the artifact with this digest, or None."""
        return self._server.patiently(lambda: self._version_of(name, digest))

    def _version_of(self, name: str, digest: str) -> RegisteredModel | None:
        for version in self._client.search_model_versions(f"name = '{name}'"):
            if version.tags.get(DIGEST_TAG) == digest:
                return self._version(name, version.version)
        return None

    def versions(self, name: str) -> list[RegisteredModel]:
        """All versions of model `name`, newest first."""
        versions = self._client.search_model_versions(f"name = '{name}'")
        numbers = sorted((int(version.version) for version in versions), reverse=True)  # versions are strings
        return [self._version(name, str(number)) for number in numbers]

    def promote(self, model: RegisteredModel) -> None:
        """Give the version the alias `champion`."""
        if "champion" not in model.aliases:
            self._server.patiently(
                lambda: self._client.set_registered_model_alias(model.name, "champion", model.version)
            )

    def find(self, uri: str) -> RegisteredModel:
        """The version that `uri` names: `models:/name/version`, `models:/name@alias`, or `name` for its newest version.

        Raises UnknownModel when it does not exist.
        """
        text = uri.removeprefix("models:/")
        with self._server.looking_up(uri):
            if "@" in text:
                name, alias = text.split("@", 1)
                return self._version(name, self._client.get_model_version_by_alias(name, alias).version)
            if "/" in text:
                name, number = text.split("/", 1)
                return self._version(name, number)
            versions = self._client.search_model_versions(f"name = '{text}'")
            if not versions:
                address = without_password(self._server.uri)
                raise UnknownModel(f"no model '{text}' is registered at {address}: see `python -m pipeline status`")
            return self._version(text, str(max(int(version.version) for version in versions)))

    def model_parts(self, model: RegisteredModel, target: Path) -> dict[str, Path]:
        """Download the model's files below `target`; returns the `folders` of its package there."""
        folder = self._download(model, target)
        artifacts = mlflow.models.Model.load(folder).flavors["python_function"]["artifacts"]
        return {name: folder / part["path"] for name, part in artifacts.items()}

    def model_program(self, uri: str) -> bytes:
        """Content of the only exported program (.pt2) among the files of a registered model of any kind.

        Raises UnknownModel when the model does not exist, ValueError when it has no or several such files.
        """
        with tempfile.TemporaryDirectory() as folder:
            programs = sorted(self._download(self.find(uri), Path(folder)).rglob("*.pt2"))
            if len(programs) != 1:
                names = [path.name for path in programs]
                raise ValueError(
                    f"{uri} must hold one .pt2 file, a torch.export program, got {names}: register a version with one"
                )
            return programs[0].read_bytes()

    def _download(self, model: RegisteredModel, target: Path) -> Path:
        with self._server.looking_up(model.uri), default_store(self._server.uri), without_mlflow_output():
            return Path(mlflow.artifacts.download_artifacts(artifact_uri=model.uri, dst_path=str(target)))

    def _version(self, name: str, version: str) -> RegisteredModel:
        details = self._client.get_model_version(name, version)
        uri = f"models:/{name}/{version}"
        return RegisteredModel(name, str(version), uri, details.run_id or "", tuple(details.aliases))


def _copy_of_code(folder: Path) -> Path:
    """Copy CODE_PACKAGE below `folder` without compiled files: MLflow would store them too."""
    ignore = shutil.ignore_patterns("__pycache__", "*.pyc")
    return Path(shutil.copytree(CODE_PACKAGE, folder / CODE_PACKAGE.name, ignore=ignore))
