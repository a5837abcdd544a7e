"""The default MLflow database after its folder was moved or copied: it goes on with the files beside it.

MLflow writes absolute paths of the files of runs and models into its database and has no call that changes them. The
default database and those files lie in one folder, `state`, so that the paths can be put right when it is opened at
another place. A database elsewhere, or on a server, is left alone.
"""

import contextlib
import sqlite3
from pathlib import Path

from components.tracking.server import sqlite_file

FILES_FOLDER = "mlflow-artifacts"
"""Folder of the files of runs and models, beside the default database."""
_PATHS = {
    "runs": "artifact_uri",
    "logged_models": "artifact_location",
    "model_versions": "storage_location",
    "experiments": "artifact_location",
}
"""Tables of MLflow with such paths, by column; experiments last: they say whether there is something to do."""
_CHANGED = "{column} = ? OR substr({column}, 1, length(?) + 1) = ? || '/'"


def files_location(state: str) -> str:
    """URI of the folder for the files of runs in a database below `state`."""
    return (Path(state).absolute() / FILES_FOLDER).as_uri()


def follow_moved_state(uri: str, state: str) -> None:
    """Put the paths in the default database of `state` right when the folder lay elsewhere before."""
    database, here = sqlite_file(uri), files_location(state)
    if database != Path(state).absolute() / "mlflow.db" or not (database.parent / FILES_FOLDER).is_dir():
        return
    with contextlib.closing(sqlite3.connect(database, timeout=30)) as connection, connection:
        found = connection.execute("SELECT DISTINCT artifact_location FROM experiments").fetchall()
        for (there,) in found:
            if there and there != here and there.startswith("file:") and there.endswith(f"/{FILES_FOLDER}"):
                for table, column in _PATHS.items():
                    condition = _CHANGED.format(column=column)
                    change = f"UPDATE {table} SET {column} = ? || substr({column}, length(?) + 1) WHERE {condition}"
                    connection.execute(change, (here, there, there, there, there))
