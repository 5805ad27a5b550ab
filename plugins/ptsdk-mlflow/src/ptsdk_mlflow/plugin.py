"""What ptsdk-mlflow contributes."""

from __future__ import annotations

from ptsdk.specs import Spec

PTSDK_API = 1


def ptsdk_loggers() -> list[Spec]:
    """One logger."""
    return [Spec("mlflow", "ptsdk_mlflow.logger:MLflow", "MLflow, in a local SQLite store by default")]
