"""Build language models by the names in trial configs, for a task's tokens."""

from typing import TYPE_CHECKING

from trainables.models.pretrained import find_folder, load_pretrained
from trainables.models.text import TextClassifier, TextModelError, build_bert
from trainables.spec.architectures import BERT_PATTERN

if TYPE_CHECKING:
    from trainables.data.dataset import Dataset


def build_text_model(name: str, dataset: "Dataset") -> TextClassifier:
    """Build `bert_L_H` with fresh weights, or load a model from a folder or from the Hub cache.

    Args:
        name: name accepted by `check_text_model_name`, except `bert:N`.
        dataset: the trial's text dataset. The model must use the same tokens.

    Raises:
        TextModelError: there is no such model, or the model has too few positions.
        ValueError: the model uses other tokens.
    """
    from trainables.data.text.dataset import TextDataset
    from trainables.data.text.tokeniser import check_vocabulary
    from trainables.data.text.tokens import padded_length

    assert isinstance(dataset, TextDataset)
    if BERT_PATTERN.fullmatch(name):
        return build_bert(name, num_classes=dataset.num_classes, vocabulary_size=dataset.vocabulary_size)
    model = load_pretrained(find_folder(name), num_classes=dataset.num_classes, task=dataset.task)
    check_vocabulary(dataset.tokeniser, model.vocabulary_size, where=name)
    needed = padded_length(int(dataset.train.tokens.lengths.max()))
    if model.positions < needed:
        raise TextModelError(
            f"{name} has {model.positions} positions, but the sentences of {dataset.name} need {needed}"
        )
    return model
