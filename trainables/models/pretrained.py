"""Language models in Hugging Face's layout, from a folder or from the local Hub cache.

Downloads happen only on request. Weights are read from safetensors files alone.
"""

import functools
import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file

from trainables.models.class_order import ClassNamesError, read_class_order
from trainables.models.text import (
    TextClassifier,
    TextModelError,
    build_described,
    description_of,
    layout_of,
    require_transformers,
)
from trainables.spec.architectures import is_folder_name
from trainables.spec.glue import GlueTask

if TYPE_CHECKING:
    from trainables.data.text.tokeniser import Tokeniser

WEIGHTS: Final = "model.safetensors"
INDEX: Final = "model.safetensors.index.json"
CONFIG: Final = "config.json"
_SUFFIX: Final = ".safetensors"
_LONGEST_REASON: Final = 200  # characters
_SHARDS: Final = "model-*-of-*.safetensors"
_FETCHED: Final = (
    CONFIG, WEIGHTS, INDEX, _SHARDS, "tokenizer.json", "tokenizer_config.json", "vocab.txt", "special_tokens_map.json"
)  # fmt: skip
# Normalisation layers' parameter names in older checkpoints, and the present names.
_OLD_NAMES: Final = {"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"}


def find_folder(name: str, *, download: bool = False) -> Path:
    """Return a model's folder.

    Args:
        name: path, or name on the Hub, such as `bert-base-uncased`.
        download: whether to download files missing in the Hub cache.

    Raises:
        TextModelError: the model was not found; the message gives the searched place and the remedy.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder.absolute()
    if is_folder_name(name):
        raise TextModelError(
            f"there is no folder {name}: give a folder with {CONFIG}, {WEIGHTS} and the tokeniser's files"
        )
    try:
        from huggingface_hub import snapshot_download  # installed with transformers, and imports ten times faster
    except ImportError as error:
        raise TextModelError(f"model {name!r} needs the extra 'text': pip install 'pesfkd[text]' ({error})") from error
    try:
        return Path(snapshot_download(name, local_files_only=not download, allow_patterns=list(_FETCHED)))
    except Exception as error:  # network, Hub and cache raise many types
        how = "it could not be downloaded" if download else "it is not in the Hugging Face cache of this machine"
        raise TextModelError(
            f"model {name!r} was not found: {how} ({type(error).__name__}). Give the folder of the model"
            + ("" if download else ", or add --download to download it")
        ) from error


def read_config(folder: Path) -> Any:
    """Read the configuration in a folder, and check that the model is supported.

    Raises:
        TextModelError: the configuration is missing, damaged, or of an unsupported model type.
    """
    transformers = require_transformers()
    if not (folder / CONFIG).is_file():
        raise TextModelError(f"{folder}: contains no {CONFIG}")
    try:
        config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # transformers raises many types
        raise TextModelError(f"{folder / CONFIG} cannot be read: {_one_line(error)}") from error
    try:
        layout_of(config)
    except TextModelError as error:
        raise TextModelError(f"{folder}: {error}") from None
    return config


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:_LONGEST_REASON] or type(error).__name__


def weight_files(folder: Path) -> list[Path]:
    """List the weight files in a folder without reading them: one safetensors file, or the shards in the index.

    Raises:
        TextModelError: there are no weights, the index is damaged, or shards are missing (the message names them).
    """
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    index = folder / INDEX
    if not index.is_file():
        others = ", ".join(sorted(each.name for each in folder.glob("*.bin"))) or "no weights at all"
        raise TextModelError(
            f"{folder}: contains no {WEIGHTS}, but {others}. Only safetensors are read, because pickles can run "
            "code; save the model with save_pretrained of transformers"
        )
    names = sorted(set(_weight_map(index).values()))
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise TextModelError(f"{folder}: {INDEX} names missing files: {', '.join(missing)}")
    return [folder / name for name in names]


def _weight_map(index: Path) -> dict[str, str]:
    """Return each weight's shard file name; every shard must lie in the folder itself."""
    try:
        content = json.loads(index.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise TextModelError(f"{index} cannot be read: {error}") from error
    found = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(found, dict) or not found:
        raise TextModelError(f"{index}: contains no weight_map, which names the file of each weight")
    for name in found.values():
        if not isinstance(name, str) or Path(name).name != name or "\\" in name or not name.endswith(_SUFFIX):
            raise TextModelError(f"{index} names {name!r}: a shard must be a {_SUFFIX} file in the same folder")
    return found


def _read_weights(folder: Path) -> dict[str, torch.Tensor]:
    """Load all weights in a folder, by name.

    Raises:
        TextModelError: a file is damaged, or lacks a weight listed in the index.
    """
    weights: dict[str, torch.Tensor] = {}
    for path in weight_files(folder):
        try:
            weights |= load_file(path)
        except (SafetensorError, OSError) as error:
            raise TextModelError(f"{path} is not a complete safetensors file: {error}") from error
    if not (folder / WEIGHTS).is_file():
        named = _weight_map(folder / INDEX)
        lacking = sorted(named.keys() - weights.keys())
        if lacking:
            raise TextModelError(
                f"{folder / named[lacking[0]]} lacks {', '.join(lacking[:3])}, which {INDEX} assigns to it"
            )
    return weights


def check_folder(folder: Path, dataset: str, root: Path | None, *, tokeniser: "Tokeniser") -> None:
    """Check a model folder without loading the weights: the folder is complete and fits a task.

    Args:
        folder: model folder.
        dataset: canonical task name.
        root: data root.
        tokeniser: tokeniser of the task's sentences.

    Raises:
        TextModelError: a file is missing or damaged, or the model has too few positions.
        ValueError: the tokeniser does not belong to the model.
    """
    from trainables.data.text.tokeniser import check_vocabulary

    config = read_config(folder)
    for path in weight_files(folder):
        try:
            with safe_open(path, framework="pt"):
                pass
        except (SafetensorError, OSError) as error:
            raise TextModelError(f"{path} is not a complete safetensors file: {error}") from error
    check_vocabulary(tokeniser, config.vocab_size, where=str(folder))
    check_positions(config.max_position_embeddings, dataset, root, tokeniser, where=str(folder))


def check_positions(positions: int, dataset: str, root: Path | None, tokeniser: "Tokeniser", *, where: str) -> None:
    """Check that a model has enough positions for a task's longest sentence.

    The check is skipped if the task's files are missing. Missing files raise an error in another place, unless they
    will be downloaded.

    Args:
        positions: the model's number of positions.
        dataset: canonical task name.
        root: data root.
        tokeniser: tokeniser of the task's sentences.
        where: model name for the message.

    Raises:
        TextModelError: the model has too few positions; the message gives both numbers.
    """
    from trainables.data.registry import dataset_info
    from trainables.data.text.dataset import longest_batch
    from trainables.data.text.tokeniser import MAX_LENGTH

    if positions >= MAX_LENGTH:
        return
    info = dataset_info(dataset)
    if info.missing_files(root):
        return
    needed = longest_batch(info, root, tokeniser)
    if positions < needed:
        raise TextModelError(
            f"{where} has {positions} positions, but the sentences of {dataset} need {needed} (they are truncated "
            f"to {MAX_LENGTH} tokens): choose a model with {needed} positions or more"
        )


def load_pretrained(
    folder: Path, *, num_classes: int, needs_head: bool = False, task: GlueTask | None = None
) -> TextClassifier:
    """Load the model in a folder with the weights stored there.

    Args:
        folder: folder with `config.json` and `model.safetensors` (or shards with an index). The model may be fine-tuned
            for sequence classification or only pretrained, such as bert-base-uncased. Pretraining heads are ignored.
        num_classes: number of classes, C.
        needs_head: whether the folder must have a last layer for these classes. If False, a missing last layer is drawn
            fresh from torch's global generator.
        task: task with the class order. The last layer's rows are permuted to this order by the class names in
            `config.json`.

    Raises:
        TextModelError: a part is missing, damaged or of another shape, or the classes differ.
    """
    config = read_config(folder)
    weights = _read_weights(folder)
    try:
        model = build_described(description_of(config), num_classes=num_classes)
    except TextModelError:
        raise
    except Exception as error:  # transformers does not validate sizes, so building fails with any torch error
        raise TextModelError(f"{folder / CONFIG} describes a model that cannot be built: {_one_line(error)}") from error
    order: tuple[int, ...] | None = tuple(range(num_classes))
    if task is not None:
        try:
            order = read_class_order(folder, task).order
        except ClassNamesError as error:
            if needs_head:
                raise TextModelError(str(error)) from error
            order = None
    _load_weights(model, weights, folder, order=order, needs_head=needs_head)
    return model


def _load_weights(
    model: TextClassifier,
    weights: dict[str, torch.Tensor],
    path: Path,
    *,
    order: tuple[int, ...] | None,
    needs_head: bool,
) -> None:
    """Load a folder's weights into a model.

    Args:
        model: model to fill, in place.
        weights: weights by the names in transformers.
        path: folder, for messages.
        order: for each class, the row of the last layer in `weights`; None to ignore the last layer.
        needs_head: see `load_pretrained`.
    """
    own = model.state_dict()
    base = model.layers_path.partition(".")[0]
    renamed = {}
    for key, value in weights.items():
        for old, new in _OLD_NAMES.items():
            key = key.replace(old, new)
        named = model.own_key(key)
        # Without a head, a model stores weights without the base model's prefix.
        renamed[named if named in own else model.own_key(f"{base}.{key}")] = value
    head = {key: renamed.get(key) for key in own if key.startswith("_head.")}
    found = head.get("_head.weight")
    if needs_head and found is None:
        raise TextModelError(
            f"{path} has no classification layer: it was pretrained but not fine-tuned. Give it as the "
            "architecture (--teacher), so that the study fine-tunes it, or fine-tune it: python -m "
            "trainables.teacher --model FOLDER"
        )
    num_classes = model.head.out_features
    if found is not None and found.dim() and found.shape[0] != num_classes:
        if needs_head:
            raise TextModelError(f"{path} distinguishes {found.shape[0]} classes, but {num_classes} are needed")
        found = None
    for key in head:
        if found is None or order is None:
            renamed[key] = own[key]
        elif key in renamed and renamed[key].shape == own[key].shape:
            renamed[key] = renamed[key][list(order)]
    # Some models count a pooler (or a similar layer) as part of the head, and pretrained-only models lack it.
    missing = [key for key in own if key not in renamed]
    inside = [key for key in missing if f".{base}." in f".{key}" and not _is_pooler(key)]
    if inside or (missing and needs_head):
        raise TextModelError(f"{path} lacks {', '.join((inside or missing)[:3])}: it has another architecture")
    wrong = [key for key in own if key in renamed and renamed[key].shape != own[key].shape]
    if wrong:
        key = wrong[0]
        raise TextModelError(
            f"{path}: {key} has shape {tuple(renamed[key].shape)}, but {CONFIG} implies {tuple(own[key].shape)}"
        )
    model.load_state_dict(own | {key: renamed[key].to(own[key].dtype) for key in own if key in renamed})
    if not all(bool(value.isfinite().all()) for value in model.parameters()):
        raise TextModelError(f"{path} has infinite or NaN weights: its training diverged")


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
    """Return a digest of a folder's weights and configuration, 16 hex digits.

    Raises:
        TextModelError: the configuration or the weights are missing.
    """
    if not (folder / CONFIG).is_file():
        raise TextModelError(f"{folder}: contains no {CONFIG}")
    digests = []
    for path in (folder / CONFIG, *weight_files(folder)):
        state = path.stat()
        digests.append(_digest(path, state.st_size, state.st_mtime_ns))
    return hashlib.sha256("|".join(digests).encode()).hexdigest()[:16]
