"""CMA-ES's state in a journal: restored with the same numbers, without calling anything named by the pickle."""

import json
import pickle

import cmaes
import numpy as np
import pytest

from study.ledger.journal import Journal
from study.ledger.ledger import StudyLedger
from study.search import cma_state
from study.search.cma_state import UntrustedStateError, trusted_attributes
from study.search.searcher import StudySearch
from tests.study.factories import PretendedTune, make_plan
from tests.study.inspection import read_journal
from tests.study.payload import Payload
from trainables.process.errors import StudyError


def an_optimizer(size=3):
    """Return a CMA-ES optimiser after three generations."""
    optimizer = cmaes.CMA(np.full(size, 0.5), 1 / 6, np.tile([0.0, 1.0], (size, 1)), seed=1)
    for _ in range(3):
        points = [optimizer.ask() for _ in range(optimizer.population_size)]
        optimizer.tell([(point, float(np.sum(point**2))) for point in points])
    return optimizer


def attributes(content: bytes, **others):
    letters = content.hex()
    return {"cma:generation": 2, **{f"cma:optimizer:{n}": letters[n * 2045 :][:2045] for n in range(9)}, **others}


def loaded(found):
    """Load the optimiser the way Optuna does."""
    chunks = [found[f"cma:optimizer:{n}"] for n in range(sum(name.startswith("cma:optimizer") for name in found))]
    return pickle.loads(bytes.fromhex("".join(chunks)))


@pytest.mark.parametrize("protocol", [4, 5])
@pytest.mark.parametrize("size", [1, 2, 11])
def test_a_state_comes_back_bit_for_bit_and_proposes_the_same(protocol, size):
    optimizer = an_optimizer(size)
    found = trusted_attributes(attributes(pickle.dumps(optimizer, protocol=protocol), other=[1]))
    assert (found["other"], found["cma:generation"]) == ([1], 2)
    again = loaded(found)
    for name, value in optimizer.__getstate__().items():
        restored = np.asarray(again.__getstate__()[name])
        assert (restored.dtype, restored.shape) == (np.asarray(value).dtype, np.shape(value)), name
        assert restored.tobytes() == np.asarray(value).tobytes(), name
    as_it_was = pickle.loads(pickle.dumps(optimizer))  # pickling rounds, because it keeps half of the covariance matrix
    for each in (as_it_was, again):
        each.reseed_rng(5)
    assert [as_it_was.ask().tolist() for _ in range(5)] == [again.ask().tolist() for _ in range(5)]


def test_attributes_without_a_state_stay_as_they_are():
    assert trusted_attributes({"gp:relative_params:0": "{}"}) == {"gp:relative_params:0": "{}"}


def pickled_with(value, name="_mean"):
    optimizer = an_optimizer()
    optimizer.__dict__[name] = value
    return pickle.dumps(optimizer)


def test_a_payload_is_refused_by_name_and_does_not_run(tmp_path):
    marker = tmp_path / "ran"
    for content in (pickle.dumps(Payload(marker)), pickled_with(Payload(marker)), pickle.dumps([an_optimizer(), 1])):
        with pytest.raises(UntrustedStateError, match=r"names pathlib\.\S*, which|it contains a list instead"):
            trusted_attributes(attributes(content))
    assert not marker.exists()
    pickle.loads(pickle.dumps(Payload(marker)))
    assert marker.exists(), "the payload is none"


# `pickle.loads` would call or set these if it had the globals: a system call, NumPy's loader, builtins, a method of an
# allowed class, attributes of an allowed class.
@pytest.mark.parametrize(
    "content",
    [
        b"cposix\nsystem\n(S'true'\ntR.",
        b"cbuiltins\neval\n(S'1'\ntR.",
        b"cnumpy\nload\n(S'/dev/null'\ntR.",
        b"cnumpy\nndarray.tofile\n.",
        b"ccmaes._cma\nCMA.ask\n.",
        b"ccmaes._cma\nnp\n.",
        b"ccopyreg\n_reconstructor\n.",
        b"ccmaes._cma\nCMA\n(dS'__init__'\nNsb.",
        b"ccmaes._cma\nCMA\n)\x81N}S'__class__'\nNs\x86b.",
        b"cnumpy._core.multiarray\nscalar\n(cnumpy\ndtype\n(S'O8'\nI0\nI1\ntRS'x'\ntR.",
        b"cnumpy._core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I9999999999\ntS'b'\ntR.",
        b"\x80\x04\x82\x01.",
        b"S'text'\n.",
        b"",
    ],
)
def test_nothing_is_called_or_set_by_a_pickle_of_any_other_shape(content):
    classes = (cmaes.CMA, *cma_state._STAND_INS.values())
    before = [dict(vars(each)) for each in classes]
    with pytest.raises(UntrustedStateError):
        trusted_attributes(attributes(content))
    assert [dict(vars(each)) for each in classes] == before


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("_mean", np.zeros(4), "_mean"),
        ("_mean", np.zeros(3, dtype=np.int64), "type 'i8'"),
        ("_mean", np.array([None] * 3), "type 'O8'"),
        ("_mean", [0.0, 0.0, 0.0], "_mean"),
        ("_mean", np.full(3, np.nan), "_mean"),
        ("_mean", np.full(3, 1e300), "out of bounds"),
        ("_c_1d", np.full(6, np.inf), "_c_1d"),
        ("_bounds", np.tile([1.0, 0.0], (3, 1)), "_bounds"),
        ("_sigma", float("nan"), "_sigma"),
        ("_sigma", -0.1, "_sigma"),
        ("_sigma", "0.1", "_sigma"),
        ("_n_dim", 10**9, "1000000000 parameters"),
        ("_popsize", -1, "population of -1"),
        ("_n_max_resampling", 10**12, "_n_max_resampling"),
        ("_lr_adapt", 1, "_lr_adapt"),
        ("_bounds", None, "_bounds"),
        ("_more", 1, "does not match the installed version of cmaes, with other fields: _more"),
    ],
)
def test_a_state_with_an_impossible_field_is_refused_by_its_name(name, value, says):
    with pytest.raises(UntrustedStateError, match=says):
        trusted_attributes(attributes(pickled_with(value, name)))


def test_a_state_that_is_cut_short_or_huge_is_refused():
    whole = attributes(pickle.dumps(an_optimizer()))
    with pytest.raises(UntrustedStateError, match="cannot be read"):
        trusted_attributes({**whole, "cma:optimizer:0": whole["cma:optimizer:0"][:-8]})
    with pytest.raises(UntrustedStateError, match="cannot be read"):
        trusted_attributes({name: value for name, value in whole.items() if name != "cma:optimizer:0"})
    with pytest.raises(UntrustedStateError, match="more than any CMA-ES state"):
        trusted_attributes({"cma:optimizer:0": "00" * 11_000_000})


def test_a_study_with_a_payload_in_its_journal_is_refused_in_words_and_runs_nothing(tmp_path):
    plan = make_plan(tmp_path, sampler="cmaes", trials=12)
    ledger = StudyLedger(plan)
    PretendedTune(StudySearch(ledger, {}), ledger).run(11)
    path, marker = plan.directory / "journal.jsonl", tmp_path / "ran"
    events = read_journal(path)[0]
    states = [e for e in events if "cma:optimizer:0" in str(e.get("optuna"))]
    assert states, "CMA-ES has not kept a state yet"
    states[-1]["optuna"]["system_attrs"] = attributes(pickle.dumps(Payload(marker)))
    path.unlink()
    journal = Journal(path)
    for event in events:
        journal.append(event)
    ledger = StudyLedger(plan)
    assert json.dumps(events[0]) == json.dumps(read_journal(path)[0][0])
    with pytest.raises(StudyError) as refused:
        StudySearch(ledger, {})
    assert str(refused.value).startswith(
        f"{path}: the sampler state of trial {states[-1]['trial_id']} is not a valid CMA-ES state: it names pathlib."
    )
    assert str(refused.value).endswith(
        "Resume the study from an intact copy of its journal, or start a new study under another name"
    )
    assert not marker.exists()
