"""Specifications of the distillation methods by name, without torch.

Each method is declared in two places: its settings and its `MethodSpec` in a module of this package, and its losses in
a module of `trainables.methods`, which defines `METHOD`. They are apart because the losses import torch, and a plan is
checked and printed before torch is imported.
"""

from trainables.spec.methods.registry import (
    METHOD_SPECS,
    check_settings,
    method_spec,
    registered_settings,
    settings_fields,
)
from trainables.spec.methods.settings import AdapterSettings, MethodSettings, WeightSettings
from trainables.spec.methods.spec import TEMPERATURE, MethodSpec

__all__ = [
    "METHOD_SPECS",
    "TEMPERATURE",
    "AdapterSettings",
    "MethodSettings",
    "MethodSpec",
    "WeightSettings",
    "check_settings",
    "method_spec",
    "registered_settings",
    "settings_fields",
]
