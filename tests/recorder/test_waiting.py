"""The places in LangChain by which the recorder knows who waits for a call."""

import importlib
import inspect

import pytest

from chatter_db.recorder import waiting

PLACES = waiting._AWAITED | waiting._ON_ITS_OWN | waiting._ASYNC


@pytest.mark.parametrize(("module", "function"), sorted(PLACES))
def test_langchain_still_has_it(module: str, function: str) -> None:
    source = inspect.getsource(importlib.import_module(module))
    assert f"def {function}(" in source
