"""Shuffled parameter sharing: a language model whose layers run twice, with query and key exchanged the second time.

Source: Cho and Kang, "Pea-KD: Parameter-efficient and Accurate Knowledge Distillation on BERT" (2020).
"""

from typing import Any, Final

from torch import nn

from trainables.models.text import TextClassifier

# By the kind of model: where a layer has its attention, and what that calls query and key.
_ATTENTION: Final[dict[str, tuple[str, str, str]]] = {
    "bert": ("attention.self", "query", "key"),
    "electra": ("attention.self", "query", "key"),
    "distilbert": ("attention", "q_lin", "k_lin"),
}


class ShuffledLayer(nn.Module):
    """Another layer once more, with its query and key exchanged; it has no parameters of its own.

    Args:
        layer: the other one.
        kind: of the model.
    """

    def __init__(self, layer: nn.Module, kind: str) -> None:
        super().__init__()
        self._other = (layer,)  # not as a part of this one: its parameters belong to where it is
        self._kind = kind

    def forward(self, *inputs: Any, **named: Any) -> Any:
        """What the layer gives, with query and key exchanged."""
        (layer,) = self._other
        path, query, key = _ATTENTION[self._kind]
        attention = layer.get_submodule(path)
        first, second = getattr(attention, query), getattr(attention, key)
        setattr(attention, query, second)
        setattr(attention, key, first)
        try:
            return layer(*inputs, **named)
        finally:
            setattr(attention, query, first)
            setattr(attention, key, second)


def share_layers(model: TextClassifier) -> None:
    """Let a model's layers run twice, in place: all of them, and then all of them with query and key exchanged."""
    if model.shares_layers:
        return
    kind = model.network.config.model_type
    for layer in list(model.layers):
        model.layers.append(ShuffledLayer(layer, kind))
    model.shares_layers = True
