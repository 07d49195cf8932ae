"""Distillation methods' specifications and settings by name, without torch."""

from trainables.spec.methods.own import is_own
from trainables.spec.methods.registry import (
    METHOD_SPECS,
    check_settings,
    is_known_method,
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
    "is_known_method",
    "is_own",
    "method_spec",
    "registered_settings",
    "settings_fields",
]
