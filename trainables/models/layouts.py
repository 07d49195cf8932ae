"""Find a network's weights in a file's content, for the layouts written by training scripts.

No list of wrapper keys is needed. Each dict of tensors in the file is compared with the network in several ways: with
all keys, without a common prefix, by groups of keys with a common prefix, and by a group (a backbone) with the single
linear layer outside the group (the head). Names serve two purposes only: to separate weight averages (EMA) from raw
weights, and the teacher from the student in a distiller's file.
"""

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, Literal, NamedTuple

import torch
from torch import Tensor, nn

from trainables.models.interface import DistillationModel
from trainables.models.taken_weights import CheckpointError, FoundWeights, TakenWeights, WeightsKind

Part = Literal["student", "teacher"]

# Counters added to every module by thop, and the counter of torch's AveragedModel.
_COUNTERS: Final = frozenset({"total_ops", "total_params"})
_AVERAGED: Final = "n_averaged"
_BATCHES: Final = "num_batches_tracked"
# Name components for wrapped modules, inserted by torch.compile, FSDP and activation checkpointing.
_WRAPPERS: Final = re.compile(r"(?:^|(?<=\.))(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
_EMA: Final = re.compile(r"(?:^|[^a-z])(?:ema|swa|avg|averaged?|shadow|polyak)|(?:ema|swa)(?:$|[^a-z])")
_DEEPEST: Final = 6  # nested dicts, and nested prefixes
_NAMED: Final = 3  # keys listed in an error, for each kind


class Candidate(NamedTuple):
    """Dict of tensors, possibly the network's weights.

    Args:
        weights: tensors by name, without the prefix in `place`.
        place: keys and prefixes on the way to the dict, joined by dots.
        words: all keys and prefixes on the way to the dict, including prefixes common to all names, in lower case.
        averaged: whether the dict contained a counter of averaged weights.
    """

    weights: dict[str, Tensor]
    place: str
    words: tuple[str, ...]
    averaged: bool

    @property
    def found(self) -> FoundWeights:
        """The weights' kind and place."""
        ema = self.averaged or any(_EMA.search(word) for word in self.words)
        kind: WeightsKind = "ema" if ema else "raw"
        return FoundWeights(kind, self.place)

    @property
    def part(self) -> Part | None:
        """Part of a distiller, if named by a key or prefix."""
        for word in reversed(self.words):
            if "teacher" in word:
                return "teacher"
            if "student" in word:
                return "student"
        return None


class Difference(NamedTuple):
    """Difference between given weights and a network's weights.

    Args:
        missing: names only in the network.
        unexpected: names only in the given weights.
        reshaped: names in both, with different shapes.
    """

    missing: list[str]
    unexpected: list[str]
    reshaped: list[str]

    @property
    def size(self) -> int:
        """Name count."""
        return len(self.missing) + len(self.unexpected) + len(self.reshaped)


def find_weights(
    content: object, model: nn.Module, *, part: Part, wanted: str | None = None
) -> tuple[dict[str, Tensor], TakenWeights]:
    """Find a network's weights in a file's content, renamed to the network's names.

    Averages (EMA) are taken only if the file has no raw weights. Earlier versions supported raw weights only, so older
    studies find the same teacher again.

    Args:
        content: file content.
        model: network to find weights for.
        part: preferred part of a distiller's checkpoint, if several parts fit.
        wanted: `raw`, `ema`, or the weights' place in the file. None selects automatically.

    Raises:
        CheckpointError: no weights fit, none of the wanted kind fit, or several different sets fit.
        MisfitError: the file has weights, but none fit.
    """
    candidates = list(_candidates(content, model))
    if not candidates:
        raise CheckpointError(
            f"it contains no weights ({_contents(content)}): give a file that torch.save(model.state_dict(), "
            "PATH) wrote"
        )
    expected = model.state_dict()
    tried = [(each, *_nearest(each.weights, model, expected)) for each in candidates]
    fitting = [(each, own) for each, own, difference in tried if not difference.size]
    if not fitting:
        closest = min(tried, key=lambda row: row[2].size)
        raise MisfitError(closest[1], closest[2], [each.weights for each in candidates])
    taken, own = _choose(fitting, part, wanted)
    others = tuple(each.found for each, weights in fitting if each is not taken and not _equal(own, weights))
    return own, TakenWeights(*_fields(taken.found), others)


class MisfitError(CheckpointError):
    """Weights do not fit a network.

    Args:
        weights: closest weights, by the network's names if known.
        difference: difference between these weights and the network's.
        candidates: all dicts of tensors in the file.
    """

    def __init__(
        self, weights: Mapping[str, Tensor], difference: Difference, candidates: Sequence[Mapping[str, Tensor]]
    ) -> None:
        super().__init__("the weights do not fit the network")
        self.weights, self.difference, self.candidates = weights, difference, candidates


def tensor_dicts(content: object) -> list[Mapping[str, Tensor]]:
    """Return every dict of tensors in a file's content, without prefixes, and every group of keys in it."""
    return [candidate.weights for candidate in _candidates(content, None)]


def fits(weights: Mapping[str, Tensor], model: nn.Module) -> bool:
    """Return whether tensors have the names and shapes of a network's weights, allowing for known alternative names."""
    return not _nearest(dict(weights), model, model.state_dict())[1].size


def head_name(model: nn.Module) -> str | None:
    """Return the module name of a network's last linear layer, or None if the module is not a classifier."""
    if not isinstance(model, DistillationModel):
        return None
    return next((name for name, module in model.named_modules() if module is model.head), None)


def name_some(keys: Sequence[str]) -> str:
    """Join the first few names, and count the others."""
    more = f" and {len(keys) - _NAMED} more" if len(keys) > _NAMED else ""
    return ", ".join(keys[:_NAMED]) + more


def _fields(found: FoundWeights) -> tuple[WeightsKind, str]:
    return found.kind, found.place


def _contents(content: object) -> str:
    if not isinstance(content, Mapping):
        return f"it contains a {type(content).__name__}, not a state dict"
    if not content:
        return "it is an empty dict"
    names = [key for key in content if isinstance(key, str)]
    return f"it has {name_some(names)}" if names else "none of its keys is a string"


def _choose(
    fitting: list[tuple[Candidate, dict[str, Tensor]]], part: Part, wanted: str | None
) -> tuple[Candidate, dict[str, Tensor]]:
    found = [each.found for each, _ in fitting]
    if wanted is None:
        wanted = "raw" if any(each.kind == "raw" for each in found) else "ema"
    chosen = [row for row in fitting if row[0].place == wanted] or [
        row for row in fitting if row[0].found.kind == wanted
    ]
    if not chosen:
        raise CheckpointError(
            f"it does not contain the weights --teacher-weights {wanted}, but {', '.join(map(str, found))}: leave "
            f"out --teacher-weights, or give {' or '.join(dict.fromkeys(each.kind for each in found))}"
        )
    for preferred in (part, None):
        same = [row for row in chosen if row[0].part == preferred]
        if same:
            chosen = same
            break
    first, *others = chosen
    if any(not _equal(first[1], own) for _, own in others):
        places = " or ".join(f"--teacher-weights {shlex.quote(each.place)}" for each, _ in chosen)
        raise CheckpointError(
            "it contains several different sets of weights that fit: "
            f"{', '.join(str(each.found) for each, _ in chosen)}. Choose one: {places}"
        )
    return first


def _equal(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> bool:
    pairs = ((first[key], second[key]) for key in first if not key.endswith(_BATCHES))
    return all(a is b or (_is_plain(a) and _is_plain(b) and a.dtype == b.dtype and a.equal(b)) for a, b in pairs)


def _is_plain(tensor: Tensor) -> bool:
    return tensor.layout == torch.strided and not (tensor.is_meta or tensor.is_quantized)


def _candidates(content: object, model: nn.Module | None) -> Iterator[Candidate]:
    """Yield every dict of tensors in the content, and every large enough group of keys."""
    least = 2 if model is None else sum(not key.endswith(_BATCHES) for key in model.state_dict())
    seen: set[int] = set()
    for path, mapping in _mappings(content, (), seen):
        tensors = ((key, value) for key, value in mapping.items() if isinstance(key, str) and isinstance(value, Tensor))
        weights = {_WRAPPERS.sub("", key): value for key, value in tensors}
        if weights:
            words = tuple(word.lower() for word in path)
            yield from _groups(Candidate(weights, ".".join(path), words, averaged=False), model, least, 0)


def _mappings(
    content: object, path: tuple[str, ...], seen: set[int]
) -> Iterator[tuple[tuple[str, ...], Mapping[Any, Any]]]:
    if not isinstance(content, Mapping) or id(content) in seen or len(path) > _DEEPEST:
        return
    seen.add(id(content))
    yield path, content
    for key, value in content.items():
        if isinstance(key, str):
            yield from _mappings(value, (*path, key), seen)


def _groups(candidate: Candidate, model: nn.Module | None, least: int, depth: int) -> Iterator[Candidate]:
    """Yield a dict of tensors and, if it does not fit, each group of keys with a common prefix."""
    kept, averaged = {}, candidate.averaged
    for key, value in candidate.weights.items():
        name = key.rpartition(".")[2]
        averaged = averaged or name == _AVERAGED
        if name not in _COUNTERS and name != _AVERAGED:
            kept[key] = value
    candidate = candidate._replace(weights=kept, averaged=averaged)
    if model is not None and fits(kept, model):
        yield candidate
        return
    groups: dict[str, dict[str, Tensor]] = {}
    for key, value in kept.items():
        prefix, dot, rest = key.partition(".")
        if dot:
            groups.setdefault(prefix, {})[rest] = value
    whole = len(groups) == 1 and sum(map(len, groups.values())) == len(kept)
    if not whole or depth >= _DEEPEST:
        yield candidate
    for prefix, group in groups.items():
        if depth < _DEEPEST and (whole or len(group) >= least):
            place = candidate.place if whole else f"{candidate.place}.{prefix}".lstrip(".")
            words = (*candidate.words, prefix.lower())
            yield from _groups(Candidate(group, place, words, averaged), model, least, depth + 1)
        if not whole and (together := _with_head(prefix, group, kept)) and (model is None or fits(together, model)):
            yield candidate._replace(weights=together)


def _with_head(prefix: str, group: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> dict[str, Tensor] | None:
    """Return a backbone's weights with the single linear layer outside the backbone, or None without this layer."""
    outside = {key: value for key, value in weights.items() if not key.startswith(f"{prefix}.")}
    names = [
        key.removesuffix(".weight") for key, value in outside.items() if key.endswith(".weight") and value.ndim == 2
    ]
    if len(names) != 1:
        return None
    layer = {key: value for key, value in outside.items() if key.rpartition(".")[0] == names[0]}
    return {**group, **layer} if not group.keys() & layer.keys() else None


def _nearest(
    weights: dict[str, Tensor], model: nn.Module, expected: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], Difference]:
    """Return the weights by the network's names, and their difference to the network's weights."""
    named = [weights]
    if isinstance(model, DistillationModel):
        named.append({model.own_key(key): value for key, value in weights.items()})
    rows = []
    for each in named:
        own = _with_own_head({**each, **_missing_counters(each, expected)}, model, expected)
        rows.append((own, _difference(own, expected)))
    return min(rows, key=lambda row: row[1].size)


def _missing_counters(weights: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return batch counters for checkpoints without them (before torch 0.4.1); a fixed momentum does not use them."""
    counters = ((key, value) for key, value in expected.items() if key.endswith(_BATCHES))
    return {key: value for key, value in counters if key not in weights or weights[key].shape != value.shape}


def _with_own_head(weights: dict[str, Tensor], model: nn.Module, expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the last layer to the network's name, if exactly one other layer of this kind exists."""
    head = head_name(model)
    missing = {key for key in expected if key not in weights}
    unexpected = sorted(key for key in weights if key not in expected)
    if head is None or missing != {key for key in expected if key.startswith(f"{head}.")}:
        return weights
    names = {key.rpartition(".")[0] for key in unexpected}
    if len(names) != 1 or {key.rpartition(".")[2] for key in unexpected} != {k.rpartition(".")[2] for k in missing}:
        return weights
    (name,) = names
    matrix, needed = weights[f"{name}.weight"], expected[f"{head}.weight"]
    if matrix.ndim != needed.ndim or matrix.shape[1:] != needed.shape[1:]:
        return weights
    return {(f"{head}.{key.rpartition('.')[2]}" if key in unexpected else key): value for key, value in weights.items()}


def _difference(weights: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> Difference:
    return Difference(
        [key for key in expected if key not in weights],
        [key for key in weights if key not in expected],
        [key for key, value in expected.items() if key in weights and weights[key].shape != value.shape],
    )
