"""Model card for a trained teacher, written from the teacher file's metadata."""

import shlex
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from trainables.display.numbers import NETWORK_PLACES, counted, format_estimate, format_interval, format_number
from trainables.spec.modality import samples_of
from trainables.spec.own_data import short_name
from trainables.user_code.reference import canonical, is_canonical

TOKENISER: Final = "tokeniser"  # metadata key for a text teacher; the value is the content of a tokenizer.json
# Tokeniser file name in a folder or in an exported program.
TOKENISER_FILE: Final = "tokenizer.json"
_CONFIDENCE: Final = 0.95


class Proportion(NamedTuple):
    """Proportion of correct predictions, with the Wilson interval.

    Args:
        correct: number of correct predictions.
        samples: n.
        low: lower bound of the 95% interval.
        high: upper bound of the 95% interval.
    """

    correct: int
    samples: int
    low: float
    high: float

    @classmethod
    def of(cls, correct: int, samples: int) -> "Proportion":
        """Compute the proportion and the interval for samples that are independent given the network.

        Args:
            correct: number of correct predictions.
            samples: n, at least 1.

        Source: Wilson, Probable inference, the law of succession, and statistical inference (1927).
        """
        from scipy.stats import binomtest  # slow to import, and most commands need no interval

        interval = binomtest(correct, samples).proportion_ci(_CONFIDENCE, method="wilson")
        return cls(correct, samples, float(interval.low), float(interval.high))

    @property
    def value(self) -> float:
        """Proportion as a fraction."""
        return self.correct / self.samples

    def __str__(self) -> str:
        return format_estimate(self, NETWORK_PLACES)


def accuracies(metadata: Mapping[str, Any]) -> dict[str, Proportion]:
    """Return the accuracies on validation and test from a teacher file's metadata."""
    return {split: Proportion.of(*metadata[f"{split}_correct"]) for split in ("validation", "test")}


def model_card(metadata: Mapping[str, Any], *, file_name: str) -> str:
    """Return the model card in Markdown.

    Args:
        metadata: teacher file metadata, as written by `trainables.teacher.job`.
        file_name: weights file name in the card's folder.
    """
    recipe = metadata["recipe"]
    rows = [
        f"| {split} | {format_number(share.value, NETWORK_PLACES)} | {format_interval(share, NETWORK_PLACES)} | "
        f"{share.samples:,} |"
        for split, share in accuracies(metadata).items()
    ]
    steps = f", divided by ten after epochs {_listed(metadata['milestones'])}" if metadata["milestones"] else ""
    text = TOKENISER in metadata
    lines = [
        f"# {metadata['architecture']} on {short_name(metadata['dataset'])}",
        "",
        "A teacher for knowledge distillation, trained by pesfkd.",
        "",
        "| split | accuracy | 95% interval | n |",
        "| --- | ---: | --- | ---: |",
        *rows,
        "",
        f"Wilson intervals for the random choice of the {samples_of(metadata['dataset'])}, with these "
        "weights; another seed gives other weights. The network is that of the last epoch, not selected by "
        "accuracy. The test split was read once, after the training.",
        "",
        "## Model",
        "",
        f"- architecture `{metadata['architecture']}`, {metadata['parameters']:,} parameters, "
        f"{metadata['num_classes']} classes",
        _inputs(metadata),
        *([f"- {metadata['classes']}"] if "classes" in metadata else []),
        f"- data `{short_name(metadata['dataset'])}`, train split of {metadata['train_samples']:,}, split seed "
        f"{metadata['split_seed']}, digest `{metadata['data_digest']}`",
        f"- weights `{file_name}`, digest `{metadata['weights']}`",
        "",
        "## Training",
        "",
        f"Recipe `{recipe['name']}`: {'AdamW' if text else 'SGD'} at {recipe['learning_rate']:g} "
        f"({recipe['schedule']}{steps}), momentum {recipe['momentum']:g}{'' if text else ' without Nesterov'}, weight "
        f"decay {recipe['weight_decay']:g}, batch "
        f"{recipe['batch_size']}, {recipe['epochs']} epochs, augmentation {recipe['augmentation']}; seed "
        f"{metadata['seed']}; {metadata['precision']} on {metadata['device']}, "
        f"{counted(metadata['threads'], 'thread')}"
        + (", starting from the published weights of the architecture's library." if metadata["pretrained"] else "."),
        "",
        "With " + ", ".join(f"{name} {metadata['versions'][name]}" for name in sorted(metadata["versions"])) + ".",
        "",
        "To train it again, in the folder of this card (`PESFKD_DATA_ROOT` or `--data-root` gives the folder of the "
        "data):",
        "",
        f"```console\n{with_kept_code(metadata['command'], '')}\n```",
        "",
        "As the teacher of a study, in the folder of this card:",
        "",
        "```console",
        f"python -m study.launch --space adapter_width --dataset {kept_code(metadata['dataset'], '')} "
        f"{teacher_options(metadata, '', file_name)}",
        "```",
    ]
    return "\n".join(lines) + "\n"


def teacher_options(metadata: Mapping[str, Any], folder: str, file_name: str) -> str:
    """Return the options for using a teacher in a study.

    Args:
        metadata: teacher file metadata.
        folder: the teacher's folder as a prefix, with a slash at the end, or an empty text.
        file_name: weights file name in the teacher's folder.
    """
    words = ["--teacher-checkpoint", f"{folder}{file_name}"]
    if is_canonical(metadata["architecture"]):  # a checkpoint names no code to be executed
        words += ["--teacher", kept_code(metadata["architecture"], folder)]
    return shlex.join(words)


def with_kept_code(command: str, folder: str) -> str:
    """Return a command with user code named by the copy in a teacher's folder; see `kept_code`."""
    return shlex.join(kept_code(word, folder) for word in shlex.split(command))


def kept_code(name: str, folder: str) -> str:
    """Return the command-line text for a network or dataset. User files are kept with a teacher.

    Args:
        name: canonical name. Other names are returned unchanged.
        folder: the teacher's folder as a prefix, with a slash at the end, or an empty text.
    """
    if not is_canonical(name):
        return name
    own = canonical(name)
    return f"{folder}code/{own.digest}/{own.title}:{own.name}" if own.title.endswith(".py") else name


def _inputs(metadata: Mapping[str, Any]) -> str:
    if TOKENISER in metadata:
        return "- inputs: sentences, tokenised by the tokeniser in the weights file (`tokeniser`, a tokenizer.json)"
    channels, size = metadata["in_channels"], metadata["image_size"]
    return (
        f"- inputs: images {channels} × {size} × {size}, scaled to [0, 1], minus {_listed(metadata['mean'])}, "
        f"divided by {_listed(metadata['std'])} (per channel)"
    )


def _listed(values: Any) -> str:
    return ", ".join(f"{value:.4g}" if isinstance(value, float) else str(value) for value in values)
