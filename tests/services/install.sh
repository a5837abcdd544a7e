#!/usr/bin/env bash
# Install the servers of the tests marked `services`: PostgreSQL from the system's packages, OpenStack Swift (an S3
# server) in its own virtual environment under .cache/. Does nothing if both are installed.
#   tests/services/install.sh [postgresql] [swift]
set -euo pipefail
here="$(cd "$(dirname "$0")" && pwd)"
venv="$here/../../.cache/swift-venv"

install_postgresql() {
    if compgen -G "/usr/lib/postgresql/*/bin/initdb" >/dev/null; then return; fi
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq
    # Tests create their own database cluster, so the package must not create one.
    mkdir -p /etc/postgresql-common/createcluster.d
    echo "create_main_cluster = false" >/etc/postgresql-common/createcluster.d/no-main-cluster.conf
    apt-get install -qq -y --no-install-recommends postgresql
}

install_swift() {
    mkdir -p "$(dirname "$venv")"
    exec 9>"$venv.lock"
    flock 9 # two test runs at once install one after the other
    if cmp -s "$here/swift/requirements.txt" "$venv/installed.txt"; then return; fi
    "${PYTHON:-python3}" -m venv --clear "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check -r "$here/swift/requirements.txt"
    cp "$here/swift/requirements.txt" "$venv/installed.txt"
}

for name in ${*:-postgresql swift}; do "install_$name"; done
