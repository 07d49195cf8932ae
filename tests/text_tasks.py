"""Small GLUE tasks for tests, with sentences that contain a word typical of the class."""

import random
from pathlib import Path

import torch

from trainables.data.registry import dataset_info
from trainables.data.text.dataset import TextDataset, TextSplit
from trainables.data.text.tokeniser import train_tokeniser
from trainables.data.text.tokens import tokenise

WORDS = ["film", "plot", "actor", "scene", "story", "music", "camera", "ending", "dialogue", "character"]
TELLING = (["dull", "awful", "poor", "tedious"], ["great", "lovely", "fine", "moving"])
LONGEST = 14


def sentences(count: int, *, seed: int = 0) -> list[tuple[str, int]]:
    """Return sentences of 2 to 14 words with their class. One in ten contains the other class's word."""
    drawn = random.Random(seed)
    found = []
    for _ in range(count):
        label = drawn.randrange(2)
        told = label if drawn.random() < 0.9 else 1 - label
        words = drawn.choices(WORDS, k=drawn.randrange(1, LONGEST))
        words.insert(drawn.randrange(len(words) + 1), drawn.choice(TELLING[told]))
        found.append((" ".join(words), label))
    return found


def write_rte(root: Path) -> Path:
    """Write RTE's files under a data root, with the published number of samples and invented sentences."""
    folder = root / "RTE"
    folder.mkdir(parents=True)
    for part, count, seed in (("train", 2490, 0), ("dev", 277, 1)):
        rows = ["index\tsentence1\tsentence2\tlabel"]
        for index, (sentence, label) in enumerate(sentences(count, seed=seed)):
            rows.append(f"{index}\t{sentence}\tit is so\t{('entailment', 'not_entailment')[label]}")
        (folder / f"{part}.tsv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return root


def small_text_dataset(*, train: int, validation: int, test: int) -> TextDataset:
    """Return a task in memory, under the name of SST-2, with a tokeniser trained on it."""
    drawn = sentences(train + validation + test)
    texts = [sentence for sentence, _ in drawn]
    tokeniser = train_tokeniser(texts, vocabulary_size=120)
    tokens = tokenise(tokeniser, [texts], max_length=16)
    labels, rows = torch.tensor([label for _, label in drawn]), torch.arange(len(drawn))
    parts = rows.split([train, validation, test])
    splits = [TextSplit(tokens, labels[part], part) for part in parts]
    return TextDataset(
        dataset_info("glue:sst2"),
        train=splits[0],
        validation=splits[1],
        read_test=lambda: splits[2],
        seed=0,
        digest=f"{train}-{validation}-{test}",
        tokeniser=tokeniser,
        max_length=16,
    )
