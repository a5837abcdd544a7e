"""Which errors of MLflow pass when one waits."""

import pytest
import requests
import sqlalchemy
from botocore.exceptions import ClientError, EndpointConnectionError
from mlflow.exceptions import MlflowException
from mlflow.protos import databricks_pb2 as codes

from components.tracking import server
from components.tracking.failures import passes, refuses

LOCKED = sqlalchemy.exc.OperationalError("UPDATE", {}, Exception("database is locked"))
READ_ONLY = sqlalchemy.exc.OperationalError("UPDATE", {}, Exception("attempt to write a readonly database"))


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MlflowException("API request failed with exception ... 503"), True),
        (MlflowException("slow down", codes.REQUEST_LIMIT_EXCEEDED), True),
        (MlflowException(str(LOCKED), codes.TEMPORARILY_UNAVAILABLE), True),
        (MlflowException("UNIQUE constraint failed: datasets.digest", codes.BAD_REQUEST), True),
        (requests.ConnectionError("refused"), True),
        (LOCKED, True),
        (EndpointConnectionError(endpoint_url="http://s3"), True),
        (ClientError({"ResponseMetadata": {"HTTPStatusCode": 503}}, "PutObject"), True),
        (ClientError({"ResponseMetadata": {"HTTPStatusCode": 403}}, "PutObject"), False),
        (READ_ONLY, False),
        (MlflowException("no such run", codes.RESOURCE_DOES_NOT_EXIST), False),
        (MlflowException("must be a name", codes.INVALID_PARAMETER_VALUE), False),
        (MlflowException("no", codes.PERMISSION_DENIED), False),
        (ValueError("key"), False),
        (FileNotFoundError("gone"), False),
    ],
)
def test_an_error_passes_when_the_same_request_may_succeed_later(error, expected):
    wrapped = RuntimeError("outer")
    wrapped.__cause__ = error
    assert passes(error) == passes(wrapped) == expected


def test_only_missing_rights_refuse():
    assert refuses(MlflowException("no", codes.PERMISSION_DENIED))
    assert refuses(MlflowException("who", codes.CUSTOMER_UNAUTHORIZED)) and not refuses(MlflowException("503"))


def test_requests_that_overlap_tell_of_one_outage(monkeypatch):
    now, said = [0.0], []
    monkeypatch.setattr(server.time, "monotonic", lambda: now[0])
    outage = server.Outage("http://server", said.append, "")
    now[0] = 10.0
    outage.noticed(ConnectionError("refused"), asked=1.0)
    outage.over(asked=2.0)  # sent before that failed, and answered before the server went away
    assert len(said) == 1 and outage.lasts
    outage.over(asked=10.0)
    assert len(said) == 2 and not outage.lasts
    now[0] = 20.0
    outage.noticed(ConnectionError("refused"), asked=5.0)  # its answer was waited for while others came
    assert len(said) == 2 and not outage.lasts
    outage.noticed(ConnectionError("refused"), asked=12.0)
    assert len(said) == 3 and outage.lasts
