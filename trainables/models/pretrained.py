"""Language models that lie in a folder, in Hugging Face's layout, or in its Hub's cache on this machine.

Nothing is fetched unless that is asked for, and of weights only safetensors are read.
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
    except Exception as error:  # the library's errors are many
        raise TextModelError(f"{folder / CONFIG} cannot be read: {_in_a_line(error)}") from error
    try:
        layout_of(config)
    except TextModelError as error:
        raise TextModelError(f"{folder}: {error}") from None
    return config


def _in_a_line(error: Exception) -> str:
    return " ".join(str(error).split())[:_LONGEST_REASON] or type(error).__name__


def weight_files(folder: Path) -> list[Path]:
    """List a folder's weights: one safetensors file, or the shards that its index names. They are not read.

    Raises:
        TextModelError: there are none, the index is damaged, or shards are missing, naming them.
    """
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    index = folder / INDEX
    if not index.is_file():
        others = ", ".join(sorted(each.name for each in folder.glob("*.bin"))) or "no weights at all"
        raise TextModelError(
            f"{folder}: there is no {WEIGHTS} in it, but {others}. Only safetensors are read, as pickles may run code; "
            "transformers' save_pretrained writes them"
        )
    names = sorted(set(_weight_map(index).values()))
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise TextModelError(f"{folder}: {INDEX} names files that are not there: {', '.join(missing)}")
    return [folder / name for name in names]


def _weight_map(index: Path) -> dict[str, str]:
    """The file of each weight, by the weight's name; every file lies in the folder itself."""
    try:
        content = json.loads(index.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise TextModelError(f"{index} cannot be read: {error}") from error
    found = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(found, dict) or not found:
        raise TextModelError(f"{index}: there is no weight_map in it, which names the file of each weight")
    for name in found.values():
        if not isinstance(name, str) or Path(name).name != name or "\\" in name or not name.endswith(_SUFFIX):
            raise TextModelError(f"{index} names {name!r}: a shard is a {_SUFFIX} file in the same folder")
    return found


def _read_weights(folder: Path) -> dict[str, torch.Tensor]:
    """All weights of a folder, by name.

    Raises:
        TextModelError: a file is damaged, or lacks a weight that the index has in it.
    """
    weights: dict[str, torch.Tensor] = {}
    for path in weight_files(folder):
        try:
            weights |= load_file(path)
        except (SafetensorError, OSError) as error:
            raise TextModelError(f"{path} is not a whole safetensors file: {error}") from error
    if not (folder / WEIGHTS).is_file():
        named = _weight_map(folder / INDEX)
        lacking = sorted(named.keys() - weights.keys())
        if lacking:
            raise TextModelError(
                f"{folder / named[lacking[0]]} lacks {', '.join(lacking[:3])}, which {INDEX} has in it"
            )
    return weights


def check_folder(folder: Path, dataset: str, root: Path | None, *, tokeniser: "Tokeniser") -> None:
    """Check, without loading weights, that a folder's model can read the sentences of a task.

    Args:
        folder: of the model.
        dataset: canonical name of the task.
        root: the data root.
        tokeniser: what the sentences are tokenised with.

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
            raise TextModelError(f"{path} is not a whole safetensors file: {error}") from error
    check_vocabulary(tokeniser, config.vocab_size, where=str(folder))
    check_positions(config.max_position_embeddings, dataset, root, tokeniser, where=str(folder))


def check_positions(positions: int, dataset: str, root: Path | None, tokeniser: "Tokeniser", *, where: str) -> None:
    """Check that a model has a position for every token of a task's longest sentence.

    Nothing is checked if the task's files are not there; that is an error of its own, unless they are to be fetched.

    Args:
        positions: of the model.
        dataset: canonical name of the task.
        root: the data root.
        tokeniser: what the sentences are tokenised with.
        where: names the model.

    Raises:
        TextModelError: naming both numbers.
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
            f"{where} has {positions} positions, and the sentences of {dataset} need {needed} (they are cut at "
            f"{MAX_LENGTH} tokens): choose a model with {needed} positions or more"
        )


def load_pretrained(
    folder: Path, *, num_classes: int, needs_head: bool = False, task: GlueTask | None = None
) -> TextClassifier:
    """A model of a folder, with the weights that lie there.

    Args:
        folder: has `config.json` and `model.safetensors` (or its shards and their index), of a model for sequence
            classification or of one that was only pretrained, such as bert-base-uncased; whatever heads that has are
            left out.
        num_classes: C.
        needs_head: whether its last layer has to be there, for those classes; otherwise one is drawn fresh, from
            torch's global generator, where there is none.
        task: for whose classes it is wanted: the last layer's rows are put in their order, by the names that
            `config.json` has for them.

    Raises:
        TextModelError: something is missing, damaged or of another shape, or of other classes.
    """
    config = read_config(folder)
    weights = _read_weights(folder)
    try:
        model = build_described(description_of(config), num_classes=num_classes)
    except TextModelError:
        raise
    except Exception as error:  # the library builds whatever sizes it is given, and fails as torch does
        raise TextModelError(
            f"{folder / CONFIG} describes a model that cannot be built: {_in_a_line(error)}"
        ) from error
    order: tuple[int, ...] | None = tuple(range(num_classes))
    if task is not None:
        try:
            order = read_class_order(folder, task).order
        except ClassNamesError as error:
            if needs_head:
                raise TextModelError(str(error)) from error
            order = None
    _fill(model, weights, folder, order=order, needs_head=needs_head)
    return model


def _fill(
    model: TextClassifier,
    weights: dict[str, torch.Tensor],
    path: Path,
    *,
    order: tuple[int, ...] | None,
    needs_head: bool,
) -> None:
    """Load a folder's weights.

    Args:
        model: takes them.
        weights: by the library's names.
        path: names them.
        order: for each class, its row in the last layer; None if that is of other classes.
        needs_head: see `load_pretrained`.
    """
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
    num_classes = model.head.out_features
    if found is not None and found.dim() and found.shape[0] != num_classes:
        if needs_head:
            raise TextModelError(f"{path} tells {found.shape[0]} classes, and {num_classes} are needed")
        found = None
    for key in head:
        if found is None or order is None:
            renamed[key] = own[key]
        elif key in renamed and renamed[key].shape == own[key].shape:
            renamed[key] = renamed[key][list(order)]
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
        TextModelError: one of them is missing.
    """
    if not (folder / CONFIG).is_file():
        raise TextModelError(f"{folder}: there is no {CONFIG} in it")
    digests = []
    for path in (folder / CONFIG, *weight_files(folder)):
        state = path.stat()
        digests.append(_digest(path, state.st_size, state.st_mtime_ns))
    return hashlib.sha256("|".join(digests).encode()).hexdigest()[:16]
