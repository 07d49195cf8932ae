"""Text classifiers from Hugging Face's transformers, split into a feature and a last linear layer.

The input is one int32 tensor (B, 2, L). Row 0 holds the token ids, padded with 0, and row 1 the segment ids (see
`trainables.data.text`). transformers is imported when the first model is built, and needs the extra `text`.
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

# By model type: the path of a layer's attention module, and the names of the query and key projections.
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
    """Paths of the modules needed for distillation, for one model type.

    Args:
        head: path of the last linear layer in the model for sequence classification.
        layers: layer list path.
        segments: whether the model takes segment ids.
    """

    head: str
    layers: str
    segments: bool


# By `model_type` of the configuration: encoders for sentences as [CLS] ... [SEP], padded with 0.
LAYOUTS: Final[dict[str, Layout]] = {
    "bert": Layout("classifier", "bert.encoder.layer", segments=True),
    "distilbert": Layout("classifier", "distilbert.transformer.layer", segments=False),
    "electra": Layout("classifier.out_proj", "electra.encoder.layer", segments=True),
}


class TextModelError(ValueError):
    """Language model cannot be built or used here; the message gives the remedy."""


class TextClassifier(DistillationModel):
    """Sequence classification model from transformers with a separate last linear layer.

    The feature is the last layer's input: for BERT the pooled output, after dropout in training. `maps` are the first
    position's states, [CLS], after the embeddings and after each layer, (B, H) each.

    Args:
        network: the transformers model. An identity replaces the last layer, in place.
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
        """Last linear layer."""
        return self._head

    @property
    def description(self) -> dict[str, Any]:
        """JSON-compatible configuration, from which `build_described` builds the same architecture."""
        return description_of(self.network.config) | ({_SHARES: True} if self.shares_layers else {})

    @property
    def vocabulary_size(self) -> int:
        """Number of token embedding rows."""
        return int(self.network.config.vocab_size)

    @property
    def positions(self) -> int:
        """Maximum number of tokens in a sentence."""
        return int(self.network.config.max_position_embeddings)

    def stages(self, images: Tensor) -> StageOutputs:
        """Return the [CLS] states (B, H), embeddings first, and the feature (B, D) for inputs (B, 2, L) int32."""
        outputs = self._run(_at_least_one(images), hidden=True)
        states = tuple(_rows_of(images, each[:, 0]) for each in outputs.hidden_states)
        return StageOutputs(states, states, _rows_of(images, outputs.logits))

    def features(self, images: Tensor) -> Tensor:
        """Return the feature (B, D) for inputs (B, 2, L) int32."""
        feature: Tensor = self._run(_at_least_one(images), hidden=False).logits
        return _rows_of(images, feature)

    def _run(self, inputs: Tensor, *, hidden: bool) -> Any:
        tokens, segments = inputs.unbind(1)
        # transformers uses a 4-dimensional mask directly. With two dimensions, it waits for the device to test if all
        # entries are true.
        mask = (tokens != 0)[:, None, None, :]
        given = {"token_type_ids": segments} if self._layout.segments else {}
        return self.network(input_ids=tokens, attention_mask=mask, output_hidden_states=hidden, **given)

    def own_key(self, key: str) -> str:
        """Map a transformers key to ours: `classifier.weight` to `_head.weight`, `bert...` to `network.bert...`."""
        name = key.removeprefix(f"{self._layout.head}.")
        return f"network.{key}" if name == key else f"_head.{name}"

    def foreign_state(self) -> dict[str, Tensor]:
        """Return the state dict with transformers' keys, for a folder readable by transformers."""
        own = self.state_dict()
        prefix = f"{self._layout.head}."
        named = {key: f"{prefix}{key.removeprefix('_head.')}" for key in own}
        return {
            named[key] if key.startswith("_head.") else key.removeprefix("network."): value
            for key, value in own.items()
        }

    @property
    def layers(self) -> nn.ModuleList:
        """Encoder layers, in order from the embeddings."""
        layers = self.network.get_submodule(self._layout.layers)
        assert isinstance(layers, nn.ModuleList)
        return layers

    @property
    def layers_path(self) -> str:
        """The layers' path in `network`."""
        return self._layout.layers


def _at_least_one(inputs: Tensor) -> Tensor:
    """Return the inputs (B, 2, L), or one dummy sentence if B is 0.

    A worker in a data-parallel trial may get no row of a small batch, and transformers cannot reshape empty states. The
    dummy row receives zero gradient, because `_rows_of` removes it.
    """
    # `len` would fix the batch size in an exported model.
    return inputs.new_ones(1, *inputs.shape[1:]) if inputs.shape[0] == 0 else inputs


def _rows_of(inputs: Tensor, outputs: Tensor) -> Tensor:
    """Return the rows of outputs (B, ...) for inputs (B, 2, L), without the dummy row of `_at_least_one`."""
    return outputs[:0] if inputs.shape[0] == 0 else outputs


def require_transformers() -> Any:
    """Import transformers and return the module.

    Raises:
        TextModelError: transformers is not installed.
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
    """Return the layout of a model with the given configuration.

    Raises:
        TextModelError: the model type is not supported, or the model does not pad with 0.
    """
    kind = config.model_type
    if kind not in LAYOUTS:
        raise TextModelError(f"models of type {kind!r} are not supported; supported types: {', '.join(LAYOUTS)}")
    if config.pad_token_id not in (0, None):
        raise TextModelError(
            f"this model pads with token {config.pad_token_id}, but batches are padded with 0: choose a model "
            "where [PAD] is token 0, as in BERT"
        )
    return LAYOUTS[kind]


def description_of(config: "PretrainedConfig") -> dict[str, Any]:
    """Return a configuration as JSON values, without file path, version, architectures and dtype."""
    left_out = ("_name_or_path", "transformers_version", "architectures", "dtype", "torch_dtype")
    content: dict[str, Any] = json.loads(config.to_json_string(use_diff=False))
    return {name: value for name, value in content.items() if name not in left_out}


def build_described(description: Mapping[str, Any], *, num_classes: int) -> TextClassifier:
    """Build the model of a description in train mode, with fresh weights from torch's global generator.

    Args:
        description: value of `TextClassifier.description`.
        num_classes: number of classes, C.

    Raises:
        TextModelError: the model type is not supported.
    """
    transformers = require_transformers()
    kind = description.get("model_type", "")
    if kind not in LAYOUTS:
        raise TextModelError(f"models of type {kind!r} are not supported; supported types: {', '.join(LAYOUTS)}")
    content = {name: value for name, value in description.items() if name not in (_SHARES, "id2label", "label2id")}
    model = _build(transformers.AutoConfig.for_model(**{**content, "num_labels": num_classes}))
    if description.get(_SHARES):
        share_layers(model)
    return model


def build_bert(name: str, *, num_classes: int, vocabulary_size: int) -> TextClassifier:
    """Build `bert_L_H`: BERT with L layers and H hidden units, with fresh weights.

    Attention heads have 64 units, or 32 if H is not a multiple of 64.

    Args:
        name: architecture, such as `bert_4_128`.
        num_classes: number of classes, C.
        vocabulary_size: number of tokens in the vocabulary.
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
    """Build a student from some of the teacher's layers.

    The student copies the teacher's embeddings and pooler. The last linear layer is drawn fresh.

    Args:
        teacher: model to copy weights from.
        count: number of student layers.
        which: `first`, `last`, or `skip`. `skip` takes the layers k, 2k, ... of k · count.

    Raises:
        TextModelError: the teacher has too few layers, or, for `skip`, a layer count not divisible by `count`.
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
    """Second run of another layer, with query and key exchanged; this module has no parameters.

    Args:
        layer: layer to run again.
        kind: model type.
    """

    def __init__(self, layer: nn.Module, kind: str) -> None:
        super().__init__()
        self._other = (layer,)  # the tuple hides the layer from `parameters()`, which already lists it elsewhere
        self._kind = kind

    def forward(self, *inputs: Any, **named: Any) -> Any:
        """Run the other layer with query and key exchanged."""
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
    """Make a model run all layers twice, in place: first as they are, then with query and key exchanged.

    Source:
        Cho and Kang, "Pea-KD: Parameter-efficient and Accurate Knowledge Distillation on BERT" (2020). The paper calls
        this shuffled parameter sharing.
    """
    if model.shares_layers:
        return
    kind = model.network.config.model_type
    for layer in list(model.layers):
        model.layers.append(ShuffledLayer(layer, kind))
    model.shares_layers = True
