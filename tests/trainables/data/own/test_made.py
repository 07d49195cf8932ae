"""Datasets from code of the user."""

import numpy as np
import pytest
import torch

from tests.own_data import digits, write_npz
from tests.user_data import COLUMNS, DATA, new_data_process
from tests.user_nets import write
from trainables.data import load_dataset
from trainables.data.own.opened import check_own, forget_own, own_info
from trainables.data.registry import dataset_info
from trainables.data.views import view_table
from trainables.user_code.loading import canonical_name

pytestmark = pytest.mark.unit


@pytest.fixture(autouse=True)
def _process():
    with new_data_process():
        yield


@pytest.fixture
def named(tmp_path):
    """Canonical name of a function of the file of the tests, or of a file with the given text."""

    def apply(function="make", text=None):
        write(tmp_path, data=DATA if text is None else text, columns=COLUMNS)
        return canonical_name(f"{tmp_path}/data.py:{function}")

    return apply


def returning(expression, before=""):
    return f"import numpy as np\nimport torch\n{before}\n\ndef make():\n    return {expression}\n"


def test_pil_images_tensors_and_arrays_give_the_same_dataset_as_files(tmp_path, named):
    name = f"arrays:{write_npz(tmp_path / 'a.npz', digits())}"
    expected = load_dataset(name, None)
    for function in ("arrays", "tensors", "keras"):
        data = load_dataset(named(function), None)
        assert data.digest == expected.digest, function
        assert torch.equal(data.test.images, expected.test.images)
    made = load_dataset(named(), None)
    assert torch.equal(made.train.images, expected.train.images)
    assert torch.equal(made.train.labels, expected.train.labels)
    assert made.info.class_names == tuple("abcdefghij")
    assert (made.info.padding, made.info.mirrored, made.info.num_views) == (1, False, 9)
    assert made.digest != expected.digest  # other views need other teacher outputs


def test_the_function_is_called_once_per_process(named):
    name = named("make", returning("(CALLS.append(1), DATA)[1]", "CALLS = []\nDATA = (np.arange(8 * 64, dtype='uint8')"
                                   ".reshape(8, 8, 8) % 255, np.arange(8) % 2)"))  # fmt: skip
    from trainables.user_code.loading import load

    for _ in range(3):
        dataset_info(name)
        load_dataset(name, None)
    assert load(name).__globals__["CALLS"] == [1]


def test_samples_are_kept_in_the_cache_and_shared(named, own_cache):
    load_dataset(named("arrays"), None)
    folders = {path.name.rpartition("-")[0] for path in (own_cache / "datasets").iterdir()}
    assert folders == {"code-train", "code-test"}


def test_random_transforms_are_refused_and_told_how_to_declare_augmentation(named):
    with pytest.raises(ValueError, match=r"(?s)train: sample \d+ differs when it is read again.*'views'.*crop_flip"):
        dataset_info(named("flips"))


def test_random_draws_are_refused_only_if_they_have_no_seed(named):
    for function in ("seeded", "seeded_at_import"):
        check_own(named(function), keep=False)
    for function in ("drawn", "drawn_at_import"):
        with pytest.raises(ValueError, match="called twice, it returns different samples of the train part"):
            check_own(named(function), keep=False)


def test_the_global_generators_are_left_as_they_were(named):
    torch.manual_seed(3)
    np.random.seed(3)  # noqa: NPY002
    before = torch.random.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    dataset_info(named("seeded"))
    assert torch.equal(before[0], torch.random.get_rng_state())
    assert np.array_equal(before[1], np.random.get_state()[1])  # noqa: NPY002


IMAGES = "np.arange(8 * 64, dtype='uint8').reshape(8, 8, 8)"
PAIR = f"({IMAGES}, np.arange(8) % 2)"


def test_own_views_are_equal_in_every_process_and_order(named):
    name = named("augmented")
    data = load_dataset(name, None)
    table = view_table(data.info, "views")
    assert (len(table), data.info.num_views) == (5, 5)
    viewed = data.viewed(table, torch.device("cpu"))
    indices = torch.arange(6).repeat_interleave(5)
    views = torch.arange(5).repeat(6)
    torch.manual_seed(1)
    state = torch.random.get_rng_state()
    first = viewed.batch(indices, views)
    assert torch.equal(state, torch.random.get_rng_state())
    assert torch.equal(first[views == 0], data.train.images[:6])
    assert len({image.numpy().tobytes() for image in first}) == 30
    order = torch.randperm(30)
    forget_own()
    again = load_dataset(name, None).viewed(table, torch.device("cpu"))
    assert torch.equal(again.batch(indices[order], views[order]), first[order])
    assert len(view_table(data.info, "none")) == 1
    check_own(name, keep=False)


@pytest.mark.parametrize(
    ("augment", "views", "says"),
    [
        ("lambda image: image.float()", "4", "augment returns torch.float32 (1, 8, 8); it gets a tensor torch.uint8"),
        ("lambda image: image[:, :4]", "4", "augment returns torch.uint8 (1, 4, 8)"),
        ("lambda image: None", "4", "augment returns NoneType"),
        ("lambda image: 1 / 0", "4", "ZeroDivisionError"),
        (
            "lambda image: (image + RANDOM.integers(9)).to(torch.uint8)",
            "4",
            "returns different views when it is called again",
        ),
        ("'flip'", "4", "augment is an object of type str: give a function"),
        ("lambda image: image", "'crop'", "views is the number of views of each image"),
        ("lambda image: image", "1", "2 to 32,767; it is 1"),
        ("None", "4", "unknown views '4'"),
    ],
)
def test_an_augmentation_that_cannot_be_used_is_refused(named, augment, views, says):
    returned = f"{{'train': {PAIR}, 'augment': {augment}, 'views': {views}}}"
    with pytest.raises(ValueError, match=r".") as found:
        check_own(named(text=returning(returned, "RANDOM = np.random.default_rng()")), keep=False)
    assert says in str(found.value)


ITEMS = """
class Items:
    def __init__(self, *items):
        self.items = items

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        return self.items[index]


class Stream:
    def __iter__(self):
        yield 1


GREY = np.arange(64, dtype="uint8").reshape(8, 8)
"""


@pytest.mark.parametrize(
    ("returned", "says"),
    [
        ("None", "returns None: return a mapping with train, test"),
        ("5", "returns an object of type int"),
        ("()", "returns a tuple of 0"),
        ("{}", "no train part, only an empty mapping"),
        (f"{{'test': {PAIR}}}", "no train part, only test"),
        (f"{{'train': {PAIR}, 'tset': {PAIR}}}", "unknown key 'tset'; did you mean 'test'?"),
        (f"{{'val': {PAIR}, 'train': {PAIR}, 'valid': {PAIR}}}", "returns two validation parts"),
        (f"{{'train': {PAIR}, 'views': 'flip'}}", "unknown views 'flip'"),
        (f"{{'train': {PAIR}, 'class_names': 'ab'}}", "class_names is a list of texts"),
        (f"{{'train': {PAIR}, 'class_names': ['a']}}", "class names a: at least two"),
        (f"{{'train': {PAIR}, 'class_names': list('abc')}}", "no training image of c"),
        ("{'train': 3}", "train: an object of type int is no dataset"),
        ("{'train': Stream()}", "can only be iterated"),
        (f"{{'train': {IMAGES}, 'test': {IMAGES}}}", "no array names images and labels"),
        (f"({IMAGES}, np.arange(7) % 2)", "8 images but 7 labels"),
        (f"({PAIR}, ({IMAGES}, np.arange(8) % 3))", "classes missing from the train part: 2"),
        (f"({PAIR}, ({IMAGES}[:, :6, :6], np.arange(8) % 2))", "images of different shapes"),
        (f"({PAIR}, ({IMAGES}[:0], np.arange(0)))", "the test part is empty"),
        ("Items(GREY, GREY)", "sample 0 is an object of type ndarray, not a pair (image, label)"),
        ("Items((GREY, 0, 1), (GREY, 1, 1))", "sample 0 is a tuple of 3"),
        ("Items((GREY, 0), ('a.png', 1))", "the image of sample 1 is an object of type str"),
        ("Items((GREY, 0), (GREY[:6], 1))", "images of different sizes (8 x 8, 6 x 8)"),
        ("Items((GREY, 0), (GREY, None))", "1 labels are missing, the first of image 1"),
        ("Items((GREY, 0), (GREY, [0, 1]))", "labels of different lengths"),
        ("Items()", "the train part is empty"),
    ],
)
def test_other_returned_values_are_refused_with_what_is_allowed(named, returned, says):
    with pytest.raises(ValueError, match=r".") as found:
        dataset_info(named(text=returning(returned, ITEMS)))
    assert says in str(found.value)


def test_what_the_code_prints_goes_to_stderr(named, capsys):
    dataset_info(
        named(text="print('at import')\n" + returning(PAIR, "").replace("return", "print('in make')\n    return"))
    )
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err == "at import\nin make\n"


def test_a_function_that_needs_an_argument_is_refused(named):
    with pytest.raises(ValueError, match="needs the argument root, but it is called without arguments"):
        dataset_info(named(text="def make(root, size=3):\n    return root\n"))


@pytest.mark.parametrize(
    ("text", "line", "error"),
    [
        ("def make():\n    return 1 / 0\n", "return 1 / 0", "ZeroDivisionError"),
        ("import sys\n\n\ndef make():\n    sys.exit(3)\n", "sys.exit(3)", "SystemExit"),
        (
            "class Data:\n    def __len__(self):\n        return 3\n\n    def __getitem__(self, index):\n        "
            "raise OSError('no disk')\n\n\nmake = lambda: (Data(),)\n",
            "raise OSError('no disk')",
            "OSError: no disk",
        ),
    ],
)
def test_errors_of_the_user_s_code_show_the_user_s_lines_alone(named, text, line, error):
    with pytest.raises(ValueError, match=r".") as found:
        dataset_info(named(text=text))
    assert line in str(found.value)
    assert error in str(found.value)
    assert "trainables" not in str(found.value)


def test_labels_of_tensors_names_and_mappings_are_read(named):
    items = "Items(*({'image': torch.from_numpy(GREY + n), 'label': torch.tensor(n % 2)} for n in range(8)))"
    assert own_info(named(text=returning(items, ITEMS))).class_sizes == [4, 4]
    items = "Items(*((GREY + n, 'cat' if n % 2 else 'dog') for n in range(8)))"
    assert own_info(named(text=returning(items, ITEMS))).class_names == ("cat", "dog")
    ordered = f"{{'train': {items}, 'class_names': ['dog', 'cat']}}"
    data = load_dataset(named(text=returning(ordered, ITEMS)), None)
    assert data.info.class_names == ("dog", "cat")
    assert torch.equal(data.train.labels, data.train.indices % 2)
    with pytest.raises(ValueError, match="labels dog are not among the class names cat, cow"):
        own_info(named(text=returning(ordered.replace("dog', 'cat", "cat', 'cow"), ITEMS)))
