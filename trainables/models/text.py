"""Language models that classify: those of Hugging Face's transformers, split into a feature and a last linear layer.

What they take is one int32 tensor (B, 2, L): token ids, 0 where a sentence has ended, and segment ids (see
`trainables.data.text`). transformers is imported when the first one is built, and needs the extra `text`.
"""

import copy
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import torch
from torch import Tensor, nn

from trainables.models.interface import DistillationModel, StageOutputs
from trainables.spec.architectures import BERT_PATTERN
from trainables.spec.layer_matching import matched_layers

# By the kind of model: where a layer has its attention, and what that calls query and key.
_ATTENTION: Final[dict[str, tuple[str, str, str]]] = {
    "bert": ("attention.self", "query", "key"),
    "electra": ("attention.self", "query", "key"),
    "distilbert": ("attention", "q_lin", "k_lin"),
}

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

_HEAD_UNITS: Final = (64, 32)
_POSITIONS: Final = 512
_SHARES: Final = "pesfkd_shared_layers"


class Layout(NamedTuple):
    """Where a kind of model keeps what we look for.

    Args:
        head: the last linear layer, in the model for sequence classification.
        layers: its list of layers there.
        segments: whether it takes segment ids.
    """

    head: str
    layers: str
    segments: bool


# By the `model_type` of their configurations: encoders that see a sentence as [CLS] ... [SEP] and pad with 0.
LAYOUTS: Final[dict[str, Layout]] = {
    "bert": Layout("classifier", "bert.encoder.layer", segments=True),
    "distilbert": Layout("classifier", "distilbert.transformer.layer", segments=False),
    "electra": Layout("classifier.out_proj", "electra.encoder.layer", segments=True),
}


class TextModelError(ValueError):
    """A language model that cannot be built or used here; the message says what to do."""


class TextClassifier(DistillationModel):
    """A model for sequence classification of transformers, whose last linear layer stands apart.

    The feature is what the layer sees: for BERT the pooled output, in training after dropout. Its `maps` are the states
    of the first position, [CLS], after the embeddings and after each layer, (B, H) each.

    Args:
        network: the model; its last layer is taken out of it.
    """

    def __init__(self, network: "PreTrainedModel") -> None:
        super().__init__()
        layout = layout_of(network.config)
        parent, _, name = layout.head.rpartition(".")
        owner = network.get_submodule(parent)
        head = getattr(owner, name)
        assert isinstance(head, nn.Linear)
        setattr(owner, name, nn.Identity())
        self.network = network
        self._head = head
        self._layout = layout
        self.shares_layers = False

    @property
    def head(self) -> nn.Linear:
        """The last linear layer."""
        return self._head

    @property
    def description(self) -> dict[str, Any]:
        """The model's configuration, from which `build_described` builds another one; JSON holds it."""
        return description_of(self.network.config) | ({_SHARES: True} if self.shares_layers else {})

    @property
    def vocabulary_size(self) -> int:
        """Rows of its embedding of tokens."""
        return int(self.network.config.vocab_size)

    @property
    def positions(self) -> int:
        """Tokens of the longest sentence that it takes."""
        return int(self.network.config.max_position_embeddings)

    def stages(self, images: Tensor) -> StageOutputs:
        """[CLS] states (B, H), those of the embeddings first, and the feature (B, D), for inputs (B, 2, L) int32."""
        outputs = self._run(_at_least_one(images), hidden=True)
        states = tuple(_rows_of(images, each[:, 0]) for each in outputs.hidden_states)
        return StageOutputs(states, states, _rows_of(images, outputs.logits))

    def features(self, images: Tensor) -> Tensor:
        """The feature (B, D) of inputs (B, 2, L) int32."""
        feature: Tensor = self._run(_at_least_one(images), hidden=False).logits
        return _rows_of(images, feature)

    def _run(self, inputs: Tensor, *, hidden: bool) -> Any:
        tokens, segments = inputs.unbind(1)
        # In four dimensions it is taken as it is; of two, transformers would first wait to see whether all are true.
        mask = (tokens != 0)[:, None, None, :]
        given = {"token_type_ids": segments} if self._layout.segments else {}
        return self.network(input_ids=tokens, attention_mask=mask, output_hidden_states=hidden, **given)

    def own_key(self, key: str) -> str:
        """The library's `classifier.weight` is ours `_head.weight`, its `bert...` is ours `network.bert...`."""
        name = key.removeprefix(f"{self._layout.head}.")
        return f"network.{key}" if name == key else f"_head.{name}"

    def foreign_state(self) -> dict[str, Tensor]:
        """The weights by the names under which transformers has them."""
        own = self.state_dict()
        prefix = f"{self._layout.head}."
        named = {key: f"{prefix}{key.removeprefix('_head.')}" for key in own}
        return {
            named[key] if key.startswith("_head.") else key.removeprefix("network."): value
            for key, value in own.items()
        }

    @property
    def layers(self) -> nn.ModuleList:
        """Its layers, from the embeddings on."""
        layers = self.network.get_submodule(self._layout.layers)
        assert isinstance(layers, nn.ModuleList)
        return layers

    @property
    def layers_path(self) -> str:
        """Where they lie in `network`."""
        return self._layout.layers


def _at_least_one(inputs: Tensor) -> Tensor:
    """The inputs (B, 2, L), or one sentence of no meaning where there are none.

    A worker of a data-parallel trial may get no row of a small batch, and the library cannot reshape empty states. Rows
    that `_rows_of` cuts off get zero gradient.
    """
    # Not `len`, which would fix the batch's size in an exported model.
    return inputs.new_ones(1, *inputs.shape[1:]) if inputs.shape[0] == 0 else inputs


def _rows_of(inputs: Tensor, outputs: Tensor) -> Tensor:
    """The outputs (B, ...) of `_at_least_one(inputs)` that belong to inputs (B, 2, L)."""
    return outputs[:0] if inputs.shape[0] == 0 else outputs


def require_transformers() -> Any:
    """The library, imported now.

    Raises:
        TextModelError: it is not installed.
    """
    try:
        import transformers
    except ImportError as error:
        raise TextModelError(
            f"language models need transformers, which cannot be imported ({error}): pip install 'pesfkd[text]'"
        ) from error
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    return transformers


def layout_of(config: "PretrainedConfig") -> Layout:
    """Where a model of that configuration keeps its parts.

    Raises:
        TextModelError: for a kind that is not known here, or that does not pad with 0.
    """
    kind = config.model_type
    if kind not in LAYOUTS:
        raise TextModelError(f"models of type {kind!r} cannot be distilled here; those that can: {', '.join(LAYOUTS)}")
    if config.pad_token_id not in (0, None):
        raise TextModelError(
            f"this model pads with token {config.pad_token_id}, and batches here are padded with 0: choose one whose "
            "[PAD] is token 0, as BERT's is"
        )
    return LAYOUTS[kind]


def description_of(config: "PretrainedConfig") -> dict[str, Any]:
    """A configuration as JSON holds it, without what says where it was read and by which version."""
    left_out = ("_name_or_path", "transformers_version", "architectures", "dtype", "torch_dtype")
    content: dict[str, Any] = json.loads(config.to_json_string(use_diff=False))
    return {name: value for name, value in content.items() if name not in left_out}


def build_described(description: Mapping[str, Any], *, num_classes: int) -> TextClassifier:
    """The model of a configuration, in train mode, with fresh weights drawn from torch's global generator.

    Args:
        description: of `TextClassifier.description`.
        num_classes: C.

    Raises:
        TextModelError: for a kind that is not known here.
    """
    transformers = require_transformers()
    kind = description.get("model_type", "")
    if kind not in LAYOUTS:
        raise TextModelError(f"models of type {kind!r} cannot be distilled here; those that can: {', '.join(LAYOUTS)}")
    content = {name: value for name, value in description.items() if name not in (_SHARES, "id2label", "label2id")}
    model = _build(transformers.AutoConfig.for_model(**{**content, "num_labels": num_classes}))
    if description.get(_SHARES):
        share_layers(model)
    return model


def build_bert(name: str, *, num_classes: int, vocabulary_size: int) -> TextClassifier:
    """`bert_L_H`: BERT with L layers and H hidden units, heads of 64 (of 32 where 64 does not divide H), fresh weights.

    Args:
        name: of it.
        num_classes: C.
        vocabulary_size: tokens.
    """
    transformers = require_transformers()
    match = BERT_PATTERN.fullmatch(name)
    assert match is not None
    layers, hidden = int(match[1]), int(match[2])
    units = next(each for each in _HEAD_UNITS if hidden % each == 0)
    config = transformers.BertConfig(
        vocab_size=vocabulary_size,
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=hidden // units,
        intermediate_size=4 * hidden,
        max_position_embeddings=_POSITIONS,
        num_labels=num_classes,
    )
    return _build(config)


def student_of_layers(teacher: TextClassifier, count: int, *, which: str) -> TextClassifier:
    """A student of some of the teacher's layers, with its embeddings and pooler; its last layer is drawn fresh.

    Args:
        teacher: whose weights are copied.
        count: of layers.
        which: `first`, `last`, or `skip`: layers k, 2k, ... of k · count.

    Raises:
        TextModelError: the teacher has too few layers, or, for `skip`, a number that is no multiple of `count`.
    """
    try:
        chosen = matched_layers(len(teacher.layers), count, which=which)
    except ValueError as error:
        raise TextModelError(f"student bert:{count}: {error}") from None
    config = copy.deepcopy(teacher.network.config)
    config.num_hidden_layers = count
    student = _build(config)
    prefix = f"network.{teacher.layers_path}."
    position = {f"{prefix}{theirs}.": f"{prefix}{own}." for own, theirs in enumerate(chosen)}
    weights: dict[str, Tensor] = {}
    for key, value in teacher.state_dict().items():
        if key.startswith("_head."):
            continue
        if key.startswith(prefix):
            old = next((old for old in position if key.startswith(old)), None)
            if old is None:
                continue
            key = position[old] + key.removeprefix(old)
        weights[key] = value
    head = {key: value for key, value in student.state_dict().items() if key.startswith("_head.")}
    student.load_state_dict(weights | head)
    return student


def _build(config: "PretrainedConfig") -> TextClassifier:
    transformers = require_transformers()
    layout_of(config)
    config.problem_type = None
    network = transformers.AutoModelForSequenceClassification.from_config(config, dtype=torch.float32)
    return TextClassifier(network).train()


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
    """Let a model's layers run twice, in place: all of them, and then all of them with query and key exchanged.

    Source:
        Cho and Kang, "Pea-KD: Parameter-efficient and Accurate Knowledge Distillation on BERT" (2020), where it is
        called shuffled parameter sharing.
    """
    if model.shares_layers:
        return
    kind = model.network.config.model_type
    for layer in list(model.layers):
        model.layers.append(ShuffledLayer(layer, kind))
    model.shares_layers = True
