import json
import shutil
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from tests.trainables.text.pretrained import KINDS, VOCABULARY, sentences, written
from trainables.data.text.dataset import TextDataset
from trainables.models.pretrained import WEIGHTS, find_folder, folder_digest, load_pretrained
from trainables.models.text import (
    TextClassifier,
    TextModelError,
    build_bert,
    build_described,
    share_layers,
    student_of_layers,
)
from trainables.run.learners import build_network


def model_of(seed: int = 0, name: str = "bert_4_32") -> TextClassifier:
    torch.manual_seed(seed)
    return build_bert(name, num_classes=2, vocabulary_size=VOCABULARY).eval()


@pytest.mark.parametrize("kind", KINDS)
def test_a_folder_of_hugging_face_gives_what_its_own_library_gives(kind: str, tmp_path: Path) -> None:
    theirs = written(kind, tmp_path)
    ours = load_pretrained(tmp_path, num_classes=2, needs_head=True).eval()
    inputs = sentences(5, 16, 9)
    given = {"token_type_ids": inputs[:, 1].long()} if kind != "distilbert" else {}
    expected = theirs(input_ids=inputs[:, 0].long(), attention_mask=(inputs[:, 0] != 0).long(), **given).logits
    torch.testing.assert_close(ours(inputs), expected)
    torch.testing.assert_close(ours.head(ours.features(inputs)), expected)
    assert {ours.own_key(key) for key in theirs.state_dict()} == set(ours.state_dict())
    assert set(ours.foreign_state()) == set(theirs.state_dict())
    assert [tuple(each.shape) for each in ours.stages(inputs).maps] == [(3, 32)] * 3
    assert student_of_layers(ours, 1, which="last").eval()(inputs).shape == (3, 2)
    share_layers(ours)
    assert not torch.allclose(ours(inputs), expected)


def test_padding_changes_no_answer() -> None:
    model, inputs = model_of(), sentences(5, 8, padded_to=8)
    padded = torch.cat([inputs, torch.zeros(2, 2, 24, dtype=torch.int32)], dim=2)
    torch.testing.assert_close(model(padded), model(inputs))


def test_the_states_are_those_of_the_first_position_after_the_embeddings_and_each_layer() -> None:
    model, inputs = model_of(), sentences(5, 16)
    outputs = model.stages(inputs)
    assert [tuple(each.shape) for each in outputs.maps] == [(2, 32)] * 5
    torch.testing.assert_close(outputs.feature, model.features(inputs))
    pooled = model.network.bert.pooler(outputs.maps[-1][:, None])
    torch.testing.assert_close(outputs.feature, pooled)


@pytest.mark.parametrize("name", ["bert_1_32", "bert_2_128", "bert_3_96"])
def test_a_berts_name_says_its_layers_and_units(name: str) -> None:
    model = model_of(name=name)
    _, layers, units = name.split("_")
    assert (len(model.layers), model.head.in_features) == (int(layers), int(units))
    assert model.network.config.intermediate_size == 4 * int(units)


@pytest.mark.parametrize(("which", "layers"), [("skip", [1, 3]), ("first", [0, 1]), ("last", [2, 3])])
def test_a_student_begins_with_layers_of_its_teacher_and_a_head_of_its_own(which: str, layers: list[int]) -> None:
    teacher = model_of()
    torch.manual_seed(5)
    student = student_of_layers(teacher, 2, which=which)
    assert len(student.layers) == 2
    for own, theirs in enumerate(layers):
        expected = teacher.layers[theirs].state_dict()
        assert all(torch.equal(each, expected[name]) for name, each in student.layers[own].state_dict().items())
    for part in ("embeddings", "pooler"):
        expected = getattr(teacher.network.bert, part).state_dict()
        found = getattr(student.network.bert, part).state_dict()
        assert all(torch.equal(each, expected[name]) for name, each in found.items())
    assert not torch.equal(student.head.weight, teacher.head.weight)
    assert not {id(p) for p in student.parameters()} & {id(p) for p in teacher.parameters()}


def test_layers_that_a_teacher_does_not_have_are_refused() -> None:
    with pytest.raises(TextModelError, match=r"bert:3: .*no 3 that are evenly spaced.*student of 1, 2, 4 layers"):
        student_of_layers(model_of(), 3, which="skip")
    with pytest.raises(TextModelError, match="more than its teacher's 4"):
        student_of_layers(model_of(), 5, which="first")


def test_shared_layers_run_twice_with_query_and_key_exchanged_and_no_parameter_more() -> None:
    shared, inputs = model_of(name="bert_2_32"), sentences(5, 16)
    parameters = {name: each.shape for name, each in shared.named_parameters()}
    twice = model_of(name="bert_4_32")
    share_layers(shared)
    assert {name: each.shape for name, each in shared.named_parameters()} == parameters
    weights = shared.state_dict()
    for number in range(4):
        prefix, source = f"network.bert.encoder.layer.{number}.", f"network.bert.encoder.layer.{number % 2}."
        for name in [name for name in weights if name.startswith(source)]:
            own = prefix + name.removeprefix(source)
            if number >= 2:
                swap = {".query.": ".key.", ".key.": ".query."}
                own = next((own.replace(old, new) for old, new in swap.items() if old in own), own)
            weights[own] = shared.state_dict()[name]
    twice.load_state_dict(weights)
    torch.testing.assert_close(shared(inputs), twice(inputs))
    again = build_described(json.loads(json.dumps(shared.description)), num_classes=2).eval()
    again.load_state_dict(shared.state_dict())
    assert torch.equal(again(inputs), shared(inputs))


def test_a_pretrained_folder_in_the_layout_of_bert_base_uncased_begins_a_network(
    text: TextDataset, tmp_path: Path
) -> None:
    folder = bert_base_layout(text, tmp_path / "bert-base")
    model = build_network(str(folder), text)
    assert isinstance(model, TextClassifier)
    weights = load_file(folder / WEIGHTS)
    for name in ("bert.embeddings.word_embeddings.weight", "bert.pooler.dense.weight"):
        assert torch.equal(model.state_dict()[f"network.{name}"], weights[name])
    norm = model.state_dict()["network.bert.embeddings.LayerNorm.weight"]
    assert torch.equal(norm, weights["bert.embeddings.LayerNorm.gamma"])
    assert model.head.out_features == 2
    with pytest.raises(TextModelError, match=r"no classification layer.*pretrained but not fine-tuned"):
        load_pretrained(folder, num_classes=2, needs_head=True)


def test_a_network_that_knows_other_tokens_is_refused(text: TextDataset, tmp_path: Path) -> None:
    written("bert", tmp_path)
    with pytest.raises(ValueError, match=r"has embeddings for 50 tokens, but the tokeniser has .* do not match"):
        build_network(str(tmp_path), text)


def test_a_folders_digest_follows_its_weights(tmp_path: Path) -> None:
    written("bert", tmp_path / "one")
    shutil.copytree(tmp_path / "one", tmp_path / "same")
    written("bert", tmp_path / "other", seed=1)
    one, same, other = (folder_digest(tmp_path / name) for name in ("one", "same", "other"))
    assert one == same != other


def test_a_folder_that_lacks_something_is_refused_by_name(tmp_path: Path) -> None:
    written("bert", tmp_path)
    weights = load_file(tmp_path / WEIGHTS)
    del weights["bert.encoder.layer.1.output.dense.weight"]
    save_file(weights, tmp_path / WEIGHTS)
    with pytest.raises(TextModelError, match=r"lacks network\.bert\.encoder\.layer\.1\.output\.dense\.weight"):
        load_pretrained(tmp_path, num_classes=2)
    (tmp_path / WEIGHTS).write_bytes(b"damaged")
    with pytest.raises(TextModelError, match="not a complete safetensors file"):
        load_pretrained(tmp_path, num_classes=2)
    (tmp_path / WEIGHTS).rename(tmp_path / "pytorch_model.bin")
    with pytest.raises(
        TextModelError, match=r"contains no model\.safetensors, but pytorch_model\.bin\. Only safetensors"
    ):
        load_pretrained(tmp_path, num_classes=2)
    (tmp_path / "config.json").unlink()
    with pytest.raises(TextModelError, match=r"contains no config\.json"):
        load_pretrained(tmp_path, num_classes=2)


def test_other_kinds_and_other_padding_are_refused(tmp_path: Path) -> None:
    roberta = transformers.RobertaConfig(vocab_size=50, hidden_size=32, num_hidden_layers=1, num_attention_heads=2)
    roberta.save_pretrained(tmp_path)
    with pytest.raises(TextModelError, match=r"'roberta' are not supported.*bert, distilbert, electra"):
        load_pretrained(tmp_path, num_classes=2)
    transformers.BertConfig(pad_token_id=3).save_pretrained(tmp_path)
    with pytest.raises(TextModelError, match="pads with token 3"):
        load_pretrained(tmp_path, num_classes=2)


def test_what_is_neither_a_folder_nor_cached_is_refused_and_nothing_is_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(TextModelError, match=f"no folder {tmp_path / 'none'}"):
        find_folder(str(tmp_path / "none"))
    with pytest.raises(
        TextModelError, match=r"'no-such-model' was not found: it is not in the Hugging Face cache.*--download"
    ):
        find_folder("no-such-model")


def bert_base_layout(text: TextDataset, folder: Path) -> Path:
    """Write a pretrained tiny BERT without a classifier, with the files and names of bert-base-uncased's folder."""
    torch.manual_seed(0)
    config = transformers.BertConfig(
        **{**KINDS["bert"].to_dict(), "vocab_size": text.vocabulary_size, "architectures": ["BertForMaskedLM"]}
    )
    weights = transformers.BertForPreTraining(config).state_dict()
    old = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}
    named = {}
    for name, each in weights.items():
        for new, former in old.items():
            name = name.replace(new, former)
        named[name] = each.clone().contiguous()
    folder.mkdir(parents=True)
    config.save_pretrained(folder)
    save_file(named, folder / WEIGHTS, metadata={"format": "pt"})
    vocabulary = sorted(text.tokeniser.backend.get_vocab().items(), key=lambda item: item[1])
    (folder / "vocab.txt").write_text("\n".join(token for token, _ in vocabulary) + "\n", encoding="utf-8")
    (folder / "tokenizer.json").write_text(text.tokeniser.json, encoding="utf-8")
    (folder / "tokenizer_config.json").write_text('{"do_lower_case": true}', encoding="utf-8")
    return folder
