"""Small language models, written by the libraries that train them."""

from pathlib import Path

import torch
import transformers

from trainables.data.text.dataset import TextDataset

VOCABULARY = 50


KINDS = {
    "bert": transformers.BertConfig(
        vocab_size=VOCABULARY, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64
    ),
    "distilbert": transformers.DistilBertConfig(
        vocab_size=VOCABULARY, dim=32, n_layers=2, n_heads=2, hidden_dim=64, pad_token_id=0
    ),
    "electra": transformers.ElectraConfig(
        vocab_size=VOCABULARY, hidden_size=32, embedding_size=16, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=64,
    ),
}  # fmt: skip


def sentences(*lengths: int, padded_to: int = 16) -> torch.Tensor:
    """Return token and segment ids (N, 2, padded_to) of random sentences with these lengths."""
    inputs = torch.zeros(len(lengths), 2, padded_to, dtype=torch.int32)
    drawn = torch.Generator().manual_seed(1)
    for row, length in enumerate(lengths):
        inputs[row, 0, :length] = torch.randint(1, VOCABULARY, (length,), generator=drawn)
        inputs[row, 1, length // 2 : length] = 1
    return inputs


def written(kind: str, folder: Path, *, classes: int = 2, seed: int = 0) -> transformers.PreTrainedModel:
    """Write a fine-tuned model of this kind to a folder with the library's own function. Return the model."""
    torch.manual_seed(seed)
    config = transformers.AutoConfig.for_model(**{**KINDS[kind].to_dict(), "num_labels": classes})
    model = transformers.AutoModelForSequenceClassification.from_config(config)
    model.save_pretrained(folder)
    return model.eval()


def fine_tuned(folder: Path, text: TextDataset, *, classes: int = 2, **changes: object) -> Path:
    """Write a fine-tuned model and the tokeniser to a folder as `save_pretrained` does."""
    torch.manual_seed(0)
    config = transformers.BertConfig(
        **{
            "vocab_size": text.vocabulary_size, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
            "intermediate_size": 64, "num_labels": classes, **changes,
        }
    )  # fmt: skip
    transformers.BertForSequenceClassification(config).save_pretrained(folder)
    (folder / "tokenizer.json").write_text(text.tokeniser.json, encoding="utf-8")
    return folder
