import re

import pytest
import torch

from trainables.data.text.tokeniser import train_tokeniser
from trainables.data.text.tokens import TokenFiles, tokenise

TEXTS = ["The film is very good .", "a dull film", "It's not a bad plot , is it ?", ""]
OTHERS = ["why", "It is not bad . " * 20, "", "a film"]


@pytest.fixture(scope="module")
def tokeniser():
    return train_tokeniser([*TEXTS, *OTHERS], vocabulary_size=100)


@pytest.mark.parametrize("columns", [[TEXTS], [TEXTS, OTHERS]])
def test_a_batch_holds_what_the_tokeniser_says_of_each_text_and_zeros_behind_it(columns, tokeniser):
    tokens = tokenise(tokeniser, columns, max_length=40)
    rows = torch.tensor([2, 0, 3, 1])
    batch = tokens.batch(rows)
    assert batch.dtype == torch.int32
    assert batch.shape == (4, 2, -(-int(tokens.lengths.max()) // 8) * 8)
    backend = tokeniser.backend
    backend.enable_truncation(40)
    for row, (ids, segments) in zip(rows.tolist(), batch.tolist(), strict=True):
        expected = backend.encode(*(column[row] for column in columns))
        size = len(expected.ids)
        assert size == tokens.lengths[row] <= 40
        assert ids == expected.ids + [0] * (len(ids) - size)
        assert segments == expected.type_ids + [0] * (len(ids) - size)
        assert 0 not in ids[:size]
    backend.no_truncation()


def test_of_a_pair_that_is_too_long_both_texts_keep_a_part(tokeniser):
    tokens = tokenise(tokeniser, [TEXTS, OTHERS], max_length=16)
    assert tokens.lengths.max() == 16
    assert (tokens.firsts >= 2).all()
    assert (tokens.firsts < tokens.lengths).all()


def test_a_batch_may_be_given_another_length(tokeniser):
    tokens = tokenise(tokeniser, [TEXTS], max_length=40)
    rows = torch.arange(4)
    long, short = tokens.batch(rows, length=64), tokens.batch(rows)
    assert long.shape == (4, 2, 64)
    assert torch.equal(long[..., : short.shape[2]], short)
    assert not long[..., short.shape[2] :].any()


@pytest.fixture
def files(tmp_path, tokeniser):
    return TokenFiles(tmp_path, "a part", tokeniser, 40)


def test_stored_tokens_are_mapped_back_as_they_were(files, tokeniser, tmp_path):
    tokens = tokenise(tokeniser, [TEXTS, OTHERS], max_length=40)
    assert files.read() is None
    files.write(tokens)
    found = files.read()
    assert found is not None
    assert all(torch.equal(*pair) for pair in zip(tokens, found, strict=True))
    maps = (line for line in open("/proc/self/maps") if str(tmp_path) in line)  # noqa: PTH123, SIM115
    assert any(re.search(r"tokens-\w+\.arrow$", line.strip()) for line in maps)
    assert TokenFiles(tmp_path, "a part", tokeniser, 41).read() is None
    assert TokenFiles(tmp_path, "another", tokeniser, 40).read() is None


@pytest.mark.parametrize("suffix", ["arrow", "safetensors"])
@pytest.mark.parametrize("damage", ["flip", "cut"])
def test_damaged_tokens_are_not_read(files, tokeniser, tmp_path, suffix, damage):
    files.write(tokenise(tokeniser, [TEXTS], max_length=40))
    (path,) = tmp_path.glob(f"*.{suffix}")
    content = bytearray(path.read_bytes())
    if damage == "cut":
        del content[-30:]
    else:
        ids = tokenise(tokeniser, [TEXTS], max_length=40).ids.numpy().tobytes()
        place = content.index(ids) if suffix == "arrow" else len(content) - 3
        content[place] ^= 1
    path.unlink()
    path.write_bytes(content)
    assert files.read() is None
