"""These tests hold the library against one version of torch: another one decides some corners in another way."""

from importlib import metadata
from pathlib import Path

import pytest

TORCH = "2.13"


def pytest_collection_modifyitems(items):
    try:
        found = metadata.version("torch")
    except metadata.PackageNotFoundError:
        return
    if not found.startswith(f"{TORCH}."):
        reason = f"torch {found} is here: these tests hold the library against torch {TORCH}"
        for item in items:
            if item.path.parent == Path(__file__).parent and "torch" in item.path.name:
                item.add_marker(pytest.mark.skip(reason=reason))
