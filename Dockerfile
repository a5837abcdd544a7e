# The one image of every part: Ray head and workers, the pipeline itself, MLflow server, Dagster.
#   docker build --build-arg GIT_REVISION=$(git describe --always --dirty --abbrev=12) -t vqvae2:1.0.0 .
FROM python:3.11.14-slim-bookworm

SHELL ["/bin/bash", "-o", "pipefail", "-c"]

# What Ray's cluster launcher calls inside the container.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends openssh-client rsync \
    && rm -rf /var/lib/apt/lists/*

RUN groupadd --gid 1000 pipeline \
    && useradd --uid 1000 --gid 1000 --create-home --shell /bin/bash pipeline \
    && install --directory --owner=pipeline --group=pipeline /opt/dagster

# Packages first, so that a change of code keeps this layer. The same pins as everywhere, plus what only servers need.
WORKDIR /app
COPY constraints.txt pyproject.toml ./
RUN python -c 'import tomllib; project = tomllib.load(open("pyproject.toml", "rb"))["project"]; \
print(*project["dependencies"], *project["optional-dependencies"]["cluster"], sep="\n")' > /tmp/requirements.txt \
    && pip install --no-cache-dir --constraint constraints.txt --requirement /tmp/requirements.txt \
    && rm /tmp/requirements.txt

COPY --chown=pipeline:pipeline infra/dagster.yaml /opt/dagster/
COPY components ./components
COPY pipeline ./pipeline

ARG GIT_REVISION=unknown
ENV GIT_REVISION=${GIT_REVISION} \
    HOME=/home/pipeline \
    MLFLOW_ALLOW_PICKLE_DESERIALIZATION=false \
    MLFLOW_DISABLE_TELEMETRY=true \
    PYTHONPATH=/app \
    PYTHONUNBUFFERED=1 \
    RAY_USAGE_STATS_ENABLED=0

USER 1000:1000
WORKDIR /home/pipeline
ENTRYPOINT ["python", "-m", "pipeline"]
CMD ["--help"]
