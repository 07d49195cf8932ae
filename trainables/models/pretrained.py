"""Language models that lie in a folder, in Hugging Face's layout, or in its Hub's cache on this machine.

Nothing is fetched unless that is asked for, and of weights only safetensors are read.
"""

import functools
import hashlib
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from trainables.models.names import is_folder_name
from trainables.models.text import (
    TextClassifier,
    TextModelError,
    build_described,
    description_of,
    layout_of,
    require_transformers,
)

WEIGHTS: Final = "model.safetensors"
CONFIG: Final = "config.json"
_FETCHED: Final = (CONFIG, WEIGHTS, "tokenizer.json", "tokenizer_config.json", "vocab.txt", "special_tokens_map.json")
# What weights are called by a model without a head, and what older checkpoints call a normalisation's.
_OLD_NAMES: Final = {"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"}


def find_folder(name: str, *, download: bool = False) -> Path:
    """The folder that a name stands for.

    Args:
        name: a path, or a name on the Hub, such as `bert-base-uncased`.
        download: whether what is not in the Hub's cache may be fetched.

    Raises:
        TextModelError: there is none, saying what was looked for and what to do.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder.absolute()
    if is_folder_name(name):
        raise TextModelError(f"there is no folder {name}: give one with {CONFIG}, {WEIGHTS} and a tokeniser's files")
    try:
        from huggingface_hub import snapshot_download  # comes with transformers, and in a tenth of its time
    except ImportError as error:
        raise TextModelError(f"model {name!r} needs what pip install 'pesfkd[text]' installs ({error})") from error
    try:
        return Path(snapshot_download(name, local_files_only=not download, allow_patterns=list(_FETCHED)))
    except Exception as error:  # the library's errors are many, of the network, the Hub and the cache
        how = "it could not be fetched" if download else "it is not in the Hugging Face cache of this machine"
        raise TextModelError(
            f"there is no model {name!r} here: {how} ({type(error).__name__}). Give its folder"
            + ("" if download else ", or let --download fetch it")
        ) from error


def read_config(folder: Path) -> Any:
    """The configuration in a folder, checked to be one that can be distilled.

    Raises:
        TextModelError: it is missing, damaged, or of a kind that is not known here.
    """
    transformers = require_transformers()
    if not (folder / CONFIG).is_file():
        raise TextModelError(f"{folder}: there is no {CONFIG} in it")
    try:
        config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise TextModelError(f"{folder / CONFIG} cannot be read: {str(error).splitlines()[0]}") from error
    try:
        layout_of(config)
    except TextModelError as error:
        raise TextModelError(f"{folder}: {error}") from None
    return config


def load_pretrained(folder: Path, *, num_classes: int, needs_head: bool = False) -> TextClassifier:
    """A model of a folder, with the weights that lie there.

    Args:
        folder: has `config.json` and `model.safetensors`, of a model for sequence classification or of one that was
            only pretrained, such as bert-base-uncased; whatever heads that has are left out.
        num_classes: C.
        needs_head: whether its last layer has to be there, for those classes; otherwise one is drawn fresh, from
            torch's global generator, where there is none.

    Raises:
        TextModelError: something is missing, damaged or of another shape, or of other classes.
    """
    config = read_config(folder)
    path = folder / WEIGHTS
    if not path.is_file():
        others = ", ".join(sorted(each.name for each in folder.glob("*.bin"))) or "no weights at all"
        raise TextModelError(
            f"{folder}: there is no {WEIGHTS} in it, but {others}. Only safetensors are read, as pickles may run code; "
            "transformers' save_pretrained writes them"
        )
    try:
        weights = load_file(path)
    except (SafetensorError, OSError) as error:
        raise TextModelError(f"{path} is not a whole safetensors file: {error}") from error
    model = build_described(description_of(config), num_classes=num_classes)
    _fill(model, weights, path, num_classes=num_classes, needs_head=needs_head)
    return model


def _fill(
    model: TextClassifier, weights: dict[str, torch.Tensor], path: Path, *, num_classes: int, needs_head: bool
) -> None:
    own = model.state_dict()
    base = model.layers_path.partition(".")[0]
    renamed = {}
    for key, value in weights.items():
        for old, new in _OLD_NAMES.items():
            key = key.replace(old, new)
        named = model.own_key(key)
        # A model without a head has its weights without its own name before them.
        renamed[named if named in own else model.own_key(f"{base}.{key}")] = value
    head = {key: renamed.get(key) for key in own if key.startswith("_head.")}
    found = head.get("_head.weight")
    if needs_head and found is None:
        raise TextModelError(
            f"{path} has no layer for classes: it was pretrained and not fine-tuned. Name it as the architecture "
            "(--teacher), which a study fine-tunes, or fine-tune it: python -m trainables.teacher --model FOLDER"
        )
    if found is not None and found.shape[0] != num_classes:
        if needs_head:
            raise TextModelError(f"{path} tells {found.shape[0]} classes, and {num_classes} are needed")
        found = None
    for key in head:
        if found is None:
            renamed[key] = own[key]
    # A pooler, or what stands in its place, is part of the head in some models and absent where only pretrained.
    missing = [key for key in own if key not in renamed]
    inside = [key for key in missing if f".{base}." in f".{key}" and not _is_pooler(key)]
    if inside or (missing and needs_head):
        raise TextModelError(f"{path} lacks {', '.join((inside or missing)[:3])}: it is of another architecture")
    wrong = [key for key in own if key in renamed and renamed[key].shape != own[key].shape]
    if wrong:
        key = wrong[0]
        raise TextModelError(f"{path}: {key} is {tuple(renamed[key].shape)}, its {CONFIG} says {tuple(own[key].shape)}")
    model.load_state_dict(own | {key: renamed[key].to(own[key].dtype) for key in own if key in renamed})
    if not all(bool(value.isfinite().all()) for value in model.parameters()):
        raise TextModelError(f"{path} has weights that are not finite: its training diverged")


def _is_pooler(key: str) -> bool:
    return ".pooler." in key or ".position_ids" in key or ".token_type_ids" in key


@functools.lru_cache(maxsize=16)
def _digest(path: Path, _size: int, _modified: int) -> str:
    content = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            content.update(block)
    return content.hexdigest()


def folder_digest(folder: Path) -> str:
    """Sixteen hex digits of a folder's weights and configuration.

    Raises:
        TextModelError: one of the two is missing.
    """
    digests = []
    for name in (CONFIG, WEIGHTS):
        path = folder / name
        if not path.is_file():
            raise TextModelError(f"{folder}: there is no {name} in it")
        state = path.stat()
        digests.append(_digest(path, state.st_size, state.st_mtime_ns))
    return hashlib.sha256("|".join(digests).encode()).hexdigest()[:16]
