"""Engines run models: they record, edit, read and generate. They know nothing of languages.

An engine is loaded on demand by its name in the config, so that its library is imported only where it is used.
"""

from __future__ import annotations

import importlib
from typing import Any

from langneurons.engines.base import Engine

ENGINES = {"hf": "langneurons.engines.hf:HfEngine", "vllm": "langneurons.engines.vllm:VllmEngine"}


def load_engine(name: str, **options: Any) -> Engine:
    """Load a model with the engine of this name; `options` are those of the engine's `load`."""
    module, _, cls = ENGINES[name].partition(":")
    engine: Engine = getattr(importlib.import_module(module), cls).load(**options)
    return engine
