"""Specifications and settings of the distillation methods by name, without torch."""

from trainables.spec.methods.registry import (
    METHOD_SPECS,
    check_settings,
    method_spec,
    registered_settings,
    settings_fields,
)
from trainables.spec.methods.settings import AdapterSettings, AdapterTermSettings, MethodSettings, WeightSettings
from trainables.spec.methods.spec import TEMPERATURE, MethodSpec

__all__ = [
    "METHOD_SPECS",
    "TEMPERATURE",
    "AdapterSettings",
    "AdapterTermSettings",
    "MethodSettings",
    "MethodSpec",
    "WeightSettings",
    "check_settings",
    "method_spec",
    "registered_settings",
    "settings_fields",
]
