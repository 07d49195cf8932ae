"""Methods that compare the feature maps of image networks."""

from typing import Final

from trainables.spec.methods.pesf_variants import TERM_AS_PUBLISHED
from trainables.spec.methods.settings import WeightSettings
from trainables.spec.methods.spec import MethodSpec


def _spec(name: str, *, kd_weight: float, smallest_batch: int = 1) -> MethodSpec:
    return MethodSpec(
        name,
        WeightSettings,
        takes_adapter=True,
        adapter_term=True,
        needs_maps=True,
        smallest_batch=smallest_batch,
        modality="images",
        published={"ce_weight": 1.0, "kd_weight": kd_weight},
        published_adapter=TERM_AS_PUBLISHED,
    )


SPECS: Final = (
    _spec("fitnet", kd_weight=100.0),
    _spec("at", kd_weight=1000.0),
    _spec("sp", kd_weight=3000.0, smallest_batch=2),
    _spec("vid", kd_weight=1.0),
)
