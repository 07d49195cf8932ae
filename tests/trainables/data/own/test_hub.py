"""Datasets of the Hugging Face hub, from a cache as its library writes it. Nothing is fetched."""

import json
import sys
from pathlib import Path

import pytest
import torch

from tests.own_data import digits, write_npz, write_parquet
from trainables.data import load_dataset
from trainables.data.own.opened import fetch_own, forget_own, own_info
from trainables.spec.own_data import source_of

pytestmark = pytest.mark.unit

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A cache of `datasets` with `pesfkd/tiny_digits`."""
    import datasets
    from datasets.packaged_modules.parquet.parquet import Parquet

    forget_own()
    folder = tmp_path / "hub"
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", folder)
    datasets.logging.disable_progress_bar()
    write_cached(Parquet, tmp_path, folder, "default")
    yield folder
    forget_own()


def write_cached(builder, tmp_path, folder, config):
    files = write_parquet(tmp_path / "source", digits(), tuple("abcdefghij")) / "data"
    parts = {part: str(files / f"{part}-00000-of-00001.parquet") for part in ("train", "test")}
    made = builder(cache_dir=str(folder / "made"), dataset_name="tiny_digits", hash=COMMIT, data_files=parts)
    made.download_and_prepare()
    written = Path(made.cache_dir)
    place = folder / "pesfkd___tiny_digits" / config / "0.0.0" / COMMIT
    place.parent.mkdir(parents=True)
    written.rename(place)
    description = place / "dataset_info.json"
    description.write_text(json.dumps(json.loads(description.read_text()) | {"config_name": config}))


def test_a_cached_dataset_is_the_same_as_its_files_and_has_class_names(cache, tmp_path):
    name = "hf:pesfkd/tiny_digits"
    found = load_dataset(name, None)
    expected = load_dataset(f"arrays:{write_npz(tmp_path / 'a.npz', digits())}", None)
    assert found.digest == expected.digest
    assert torch.equal(found.test.images, expected.test.images)
    assert found.info.class_names == tuple("abcdefghij")
    assert source_of(name) == "Hugging Face datasets, pesfkd/tiny_digits"
    assert own_info(f"{name},views=none").views == "none"
    forget_own()
    assert load_dataset(name, None, download=True).digest == found.digest  # nothing to fetch


def test_the_cached_revision_is_checked(cache):
    assert own_info(f"hf:pesfkd/tiny_digits@{COMMIT[:9]}").sizes == {"train": 200, "test": 60}
    with pytest.raises(ValueError, match=f"the cache of datasets has {COMMIT}: --download fetches fffffff"):
        own_info("hf:pesfkd/tiny_digits@fffffff")
    with pytest.raises(ValueError, match="7 to 40 hexadecimal digits"):
        own_info("hf:pesfkd/tiny_digits@main")


def test_several_configs_need_a_choice(cache, tmp_path):
    from datasets.packaged_modules.parquet.parquet import Parquet

    write_cached(Parquet, tmp_path, cache, "large")
    with pytest.raises(ValueError, match=r"multiple .*default.*large.*Choose one by ,config=NAME"):
        own_info("hf:pesfkd/tiny_digits")
    assert own_info("hf:pesfkd/tiny_digits,config=large").sizes == {"train": 200, "test": 60}


def test_a_dataset_that_is_not_cached_is_refused_offline(cache):
    with pytest.raises(ValueError, match=r"hf:pesfkd/other is not in the cache of datasets.*--download fetches it"):
        own_info("hf:pesfkd/other")


def test_the_library_is_kept_off_the_network_unless_asked(cache, monkeypatch):
    import datasets
    import huggingface_hub.constants

    seen = []

    def load(name, config, revision):
        seen.append((datasets.config.HF_HUB_OFFLINE, huggingface_hub.constants.HF_HUB_OFFLINE))
        raise ConnectionError("no network")

    monkeypatch.setattr(datasets, "load_dataset", load)
    before = datasets.config.HF_HUB_OFFLINE, huggingface_hub.constants.HF_HUB_OFFLINE
    with pytest.raises(ValueError, match="hf:a/b cannot be fetched: no network"):
        load_dataset("hf:a/b", None, download=True)
    assert seen == [(True, True), before]
    assert before == (datasets.config.HF_HUB_OFFLINE, huggingface_hub.constants.HF_HUB_OFFLINE)


def test_without_the_library_the_extra_is_named(monkeypatch):
    forget_own()
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ValueError, match=r"pip install 'pesfkd\[datasets\]'"):
        own_info("hf:pesfkd/tiny_digits")


def test_a_dry_run_fetches_nothing_and_says_so(cache):
    fetch_own("hf:pesfkd/tiny_digits", dry_run=True)
    fetch_own("arrays:anything.npz", dry_run=False)
    with pytest.raises(ValueError, match="A dry run fetches nothing"):
        fetch_own("hf:pesfkd/other", dry_run=True)
