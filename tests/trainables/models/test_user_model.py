"""Networks of the user's own: split into feature and head, tried out, and refused with what to do."""

import copy

import pytest
import torch

from tests.user_nets import NET, new_process, write_net
from trainables.models import CheckpointError, build_model, load_checkpoint
from trainables.models.folding import FoldedCopy
from trainables.models.user_model import call_maker
from trainables.models.user_model_check import user_model_problem
from trainables.process.randomness import generator_from, seeded
from trainables.user_code.errors import UserCodeError
from trainables.user_code.loading import canonical_name

IMAGES = torch.randn(2, 1, 8, 8, generator=generator_from(1))
SHAPE = {"num_classes": 10, "in_channels": 1}
HEADER = "import torch\nfrom torch import nn\nfrom torch.nn import functional\n\n"
# A network with a body to fill in: the layers and the rest of the forward pass.
BODY = (
    HEADER
    + """
class Net(nn.Module):
    def __init__(self, num_classes, in_channels):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, 6, 3)
        self.norm = nn.BatchNorm2d(6)
        self.fc = nn.Linear(6, num_classes)
        {init}

    def forward(self, images):
        x = functional.relu(self.norm(self.conv(images))).mean(dim=(2, 3))
        {forward}


def make(num_classes, in_channels):
    return Net(num_classes, in_channels)
"""
)


@pytest.fixture(autouse=True)
def _process():
    with new_process():
        yield


def named(tmp_path, net=NET, name="make"):
    return canonical_name(f"{write_net(tmp_path, net)}:{name}")


def with_body(tmp_path, init="pass", forward="return self.fc(x)"):
    return named(
        tmp_path, BODY.format(init=init.replace("\n", "\n        "), forward=forward.replace("\n", "\n        "))
    )


def problem(name, *, trains=True):
    return user_model_problem(name, IMAGES, num_classes=10, trains=trains)


def test_frozen_unused_and_parametrised_layers_are_accepted(tmp_path):
    layers = "self.conv.requires_grad_(False)\nself.unused = nn.Linear(3, 3)\nself.cached = None\n"
    head = "self.fc = nn.utils.parametrizations.weight_norm(nn.Linear(6, num_classes))"
    assert problem(with_body(tmp_path, layers + head, "self.cached = x\nreturn self.fc(x)")) is None


def test_what_a_module_draws_when_it_is_imported_moves_no_weights(tmp_path):
    name = named(tmp_path, HEADER + "DRAWN = torch.randn(3)\ntorch.manual_seed(1)\n" + NET)
    assert problem(name) is None
    with new_process():
        canonical_name(f"{tmp_path / 'net.py'}:make")
        weights = []
        for _ in range(2):
            with seeded(5):
                weights.append(build_model(name, **SHAPE).state_dict())
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])


def test_what_the_user_prints_goes_not_to_stdout(tmp_path, capsys):
    text = NET.replace("        maps =", "        print('in forward')\n        maps =").replace(
        "    return Net", "    print('in make')\n    return Net"
    )
    assert problem(named(tmp_path, "print('at import')\n" + text)) is None
    printed = capsys.readouterr()
    assert printed.out == ""
    assert {"at import", "in make", "in forward"} <= set(printed.err.splitlines())


@pytest.mark.parametrize("maker", ["make", "plain", "Net"])
@pytest.mark.parametrize("training", [True, False])
def test_feature_and_head_give_the_logits_of_the_user_s_own_network(tmp_path, maker, training):
    name = named(tmp_path, name=maker)
    assert problem(name) is None
    with seeded(3):
        own = call_maker(name, **SHAPE).train(training)
    with seeded(3):
        split = build_model(name, **SHAPE).train(training)
    with seeded(4):
        expected = own(IMAGES)
    with seeded(4):
        feature = split.features(IMAGES)
    assert feature.shape == (2, split.head.in_features)
    assert torch.equal(split.head(feature), expected)


def test_named_stages_give_the_stem_s_map_and_theirs(tmp_path):
    model = build_model(named(tmp_path), **SHAPE).eval()
    maps, preactivations, feature = model.stages(IMAGES)
    assert [tuple(each.shape) for each in maps] == [(2, 4, 8, 8), (2, 8, 4, 4), (2, 8, 2, 2)]
    assert all(a is b for a, b in zip(maps, preactivations, strict=True))
    assert torch.equal(maps[0], torch.relu(model.network.stem(IMAGES)))
    assert torch.equal(maps[-1].mean(dim=(2, 3)), feature)
    assert torch.equal(feature, model.features(IMAGES))
    assert not any(module._forward_hooks for module in model.modules())
    assert build_model(named(tmp_path, name="plain"), **SHAPE).stages(IMAGES).maps == ()
    with pytest.raises(ValueError, match="cannot resume from the output of a stage"):
        model.resume(0, maps[0])


def test_maps_carry_gradients_also_in_a_copy(tmp_path):
    model = copy.deepcopy(build_model(named(tmp_path), **SHAPE))
    outputs = model.feature_maps(IMAGES)
    sum(each.square().mean() for each in (*outputs.maps, outputs.logits)).backward()
    assert all(each.grad is not None for each in model.parameters())


def test_of_several_fitting_layers_the_one_that_gives_the_output_is_the_head(tmp_path):
    aux = with_body(tmp_path, "self.last = self.fc\nself.aux = nn.Linear(6, num_classes)",
                    "self.aux(x)\nreturn self.fc(x)")  # fmt: skip
    assert problem(aux) is None
    model = build_model(aux, **SHAPE)
    assert model.head_path == "fc"
    assert [name for name, each in model.network.named_modules() if isinstance(each, torch.nn.Linear)] == ["aux"]


def test_the_head_can_be_named_where_no_pass_shows_it(tmp_path):
    # Images of 100 pixels alone, which no probe has.
    layers = "self.aux = nn.Linear(6, num_classes)\nself.flat = nn.Linear(100 * 100, 6)"
    forward = "return self.fc(self.flat(images.flatten(1)))"
    name = with_body(tmp_path / "a", layers, forward)
    with pytest.raises(UserCodeError, match=r'fc, aux.*self\.head = "fc"'):
        build_model(name, **SHAPE)
    assert build_model(with_body(tmp_path / "b", layers + '\nself.head = "fc"', forward), **SHAPE).head_path == "fc"


@pytest.mark.parametrize(
    ("init", "forward", "says"),
    [
        ("pass", "return (self.fc(x), x)", "returns a tuple of 2; return the logits (2, 10) alone"),
        ("pass", "return {'logits': self.fc(x)}", "returns a dict of 1"),
        ("pass", "return (self.fc(x), x) if self.training else self.fc(x)", "in train mode it returns a tuple of 2"),
        ("pass", "return self.fc(x)[:, :7]", "shape (2, 7) instead of (2, 10): build it with num_classes = 10"),
        ("pass", "return self.fc(x).sum(0)", "shape (10,) instead of (2, 10)"),
        ("pass", "return self.fc(x) / 0", "its logits are not finite"),
        ("pass", "return self.fc(x).double()", "torch.float64"),
        ("pass", "return self.fc(x).softmax(1)", "its output is not that of the linear layer 'fc'"),
        ("pass", "x = self.fc(x)\nreturn x if self.training else x.softmax(1)", "in eval mode its output is not"),
        ("self.fc = nn.Linear(10, 10)\nself.w = nn.Linear(6, 10)", "return self.fc(self.fc(self.w(x)))",
         "its output is not that of the linear layer 'fc'"),
        ("pass", "return functional.linear(x, self.fc.weight)", "without it the network fails: AttributeError"),
        ("pass", "return self.fc(functional.dropout(x))", "give training=self.training to functional.dropout"),
        ("pass", "import random\nreturn self.fc(x * random.random()) if self.training else self.fc(x)",
         "two passes with the same seed differ"),
        ("pass", "import random\nreturn self.fc(x if random.random() > 1e-9 else -x)",
         "in train mode it draws from the global generator of random, which trials do not seed"),
        ("pass", "import numpy as np\nnp.random.rand(3)\nreturn self.fc(x)",
         "draws from the global generator of numpy.random, which trials do not seed, so no trial could run again"),
        ("pass", "torch.manual_seed(0)\nreturn self.fc(functional.dropout(x, training=self.training))",
         "in train mode it sets the seed of the global generator of torch, so all batches would draw equal numbers: "
         "draw by torch's global generator, and leave its seed as it is"),
        ("import random\nself.deep = random.random() > 1e-9", "return self.fc(x)",
         "make draws from the global generator of random"),
        ("import random\nself.fc.bias.data.fill_(random.random())", "return self.fc(x)",
         "other weights for the same seed"),
        ("self.passes = 0", "self.passes += 1\nreturn self.fc(x)", "passes changes in a pass, and a checkpoint"),
        ("import threading\nself.lock = threading.Lock()", "return self.fc(x)", "cannot be copied, as its evaluation"),
        ("Net.get_extra_state = lambda self: {}", "return self.fc(x)",
         "_extra_state is a dict in the state dict"),
        ("self.requires_grad_(False)", "return self.fc(x)", "no parameter that could be trained"),
        ("pass", "return self.fc(x.mean(0, keepdim=True)).expand(2, -1)", "another shape for a single image"),
        ("pass", "raise ValueError('mine')", "ValueError: mine"),
        ("self.stages = ['conv', 'nrom']", "return self.fc(x)", "stages names no module 'nrom'; did you mean 'norm'?"),
        ("self.stages = 'conv'", "return self.fc(x)", 'give a list, such as ["conv"]'),
        ("self.stages = [self.conv]", "return self.fc(x)", "stages has a Conv2d"),
        ("self.stages = ['conv', 'conv']", "return self.fc(x)", "names a module twice"),
        ("self.stages = ['fc']", "return self.fc(x)", "the input of 'fc' has shape (2, 6)"),
        ("self.other = nn.Conv2d(1, 1, 1)\nself.stages = ['other']", "return self.fc(x)", "runs 0 times in a pass"),
        ("self.o = nn.Conv2d(1, 6, 1)\nself.stages = ['o']",
         "m = self.o(images)\nm.relu_()\nreturn self.fc(m.mean((2, 3)))", "changed in place after the stage"),
        ("self.head = 'cf'", "return self.fc(x)", "names no module; did you mean 'fc'?"),
        ("self.head = 'conv'", "return self.fc(x)", "is a Conv2d, not an nn.Linear"),
        ("self.fc = nn.Linear(6, 12)\nself.head = 'fc'", "return self.fc(x)[:, :10]", "gives 12 logits"),
        ("self.fc = nn.Conv2d(6, num_classes, 1)", "return self.fc(x[..., None, None]).flatten(1)",
         "no nn.Linear with 10 outputs"),
        ("self.fc = nn.LazyLinear(num_classes)", "return self.fc(x)", "has no size yet"),
        ("self.double()", "return self.fc(x.double()).float()", "is torch.float64; build the network in float32"),
    ],
)  # fmt: skip
def test_a_network_that_cannot_be_distilled_or_run_again_is_refused_with_what_to_do(tmp_path, init, forward, says):
    told = problem(with_body(tmp_path, init, forward))
    assert told is not None
    assert says in told


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("def make(classes): ...\n", "make(classes) cannot be called as make(num_classes=10, in_channels=1)"),
        ("def make(num_classes, in_channels, width): ...\n", "missing a required argument: 'width'"),
        ("def make(**more):\n    return more\n", "returned a dict; return a torch.nn.Module"),
        ("def make(**more):\n    return nn.Linear\n", "the class itself"),
        (
            "class Net(nn.Linear):\n    def forward(self, images):\n        return super().forward(images.flatten(1))\n"
            "def make(num_classes, **more):\n    return Net(64, num_classes)\n",
            "a single linear layer",
        ),
        ("def make(**more):\n    return {}['x']\n", "KeyError: 'x'"),
        ("def make(**more):\n    return nn.DataParallel(nn.Linear(2, 2))\n", "a DataParallel around a module"),
        pytest.param(
            "def make(**more):\n    return torch.compile(nn.Linear(2, 2))\n",
            "OptimizedModule around a module",
            marks=pytest.mark.slow,
        ),  # imports the compiler
        ("def make(**more):\n    raise SystemExit('mine')\n", "SystemExit: mine"),
        ("def make(**more):\n    torch.manual_seed(0)\n    return nn.Linear(2, 2)\n", "leave out torch.manual_seed"),
        ("def make(**more):\n    return nn.Linear(2, 2, device='meta')\n", "is on meta; build the network on the CPU"),
        ("def make(**more):\n    return torch.jit.script(nn.Linear(2, 2))\n", "a scripted module"),
    ],
)
def test_a_callable_that_makes_no_network_is_refused(tmp_path, text, says):
    told = problem(named(tmp_path, HEADER + text))
    assert told is not None
    assert says in told


def test_an_error_of_the_forward_pass_shows_the_user_s_lines_alone(tmp_path):
    told = problem(with_body(tmp_path, "self.fc = nn.Linear(7, num_classes)"))
    assert told is not None
    assert told.startswith("in train mode it fails on images (2 x 1 x 8 x 8):\nTraceback (most recent call last):\n")
    assert f'File "{tmp_path}/net.py"' in told.splitlines()[2]
    assert "return self.fc(x)" in told
    assert "user_model" not in told
    assert "RuntimeError: " in told


def test_a_given_teacher_is_not_asked_to_train(tmp_path):
    name = with_body(tmp_path, "self.requires_grad_(False)", "return (x, x) if self.training else self.fc(x)")
    assert problem(name, trains=False) is None


@pytest.mark.study
def test_a_checkpoint_of_the_user_s_training_loads_and_another_s_is_refused_with_the_keys(tmp_path):
    name = named(tmp_path)
    with seeded(1):
        own = call_maker(name, **SHAPE).eval()
    torch.save({"model": own.state_dict()}, tmp_path / "own.pth")
    model = build_model(name, **SHAPE).eval()
    load_checkpoint(model, tmp_path / "own.pth", part="teacher")
    assert torch.equal(model(IMAGES), own(IMAGES))
    state = own.state_dict()
    state["layer3.conv.weight"] = state.pop("layer2.conv.weight")
    torch.save(state, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match=r"layer2\.conv\.weight.*layer3\.conv\.weight"):
        load_checkpoint(model, tmp_path / "other.pth", part="teacher")


def test_a_layer_with_two_names_and_tied_weights_stay_one_layer(tmp_path):
    layers = "self.classifier = nn.Sequential(self.fc)\nself.twin = nn.Linear(6, num_classes)\n"
    tied = "self.twin.weight = self.fc.weight\nself.head = 'fc'"
    name = with_body(tmp_path, layers + tied, "self.twin(x)\nreturn self.classifier(x)")
    assert problem(name) is None
    model = build_model(name, **SHAPE)
    assert model.network.twin.weight is model.head.weight
    again = copy.deepcopy(model)
    assert again.network.twin.weight is again.head.weight
    own = call_maker(name, **SHAPE)
    torch.save(own.state_dict(), tmp_path / "own.pth")
    load_checkpoint(model, tmp_path / "own.pth")
    assert torch.equal(model.eval()(IMAGES), own.eval()(IMAGES))


def test_norms_of_a_user_s_network_are_folded_exactly(tmp_path):
    model = build_model(named(tmp_path), **SHAPE)
    model.train()(torch.randn(8, 1, 8, 8, generator=generator_from(2)))
    folded = FoldedCopy(model, IMAGES)
    assert [pair[0] for pair in folded.pairs] == ["network.layer1.conv", "network.layer2.conv"]
    assert torch.allclose(folded.current()(IMAGES), model.eval()(IMAGES), atol=1e-6)


def test_a_network_that_implements_the_interface_is_used_as_it_is(tmp_path):
    text = "from trainables.models.cnn import SmallCNN\ndef make(**shape):\n    return SmallCNN((3, 4), **shape)\n"
    name = named(tmp_path, text)
    assert problem(name) is None
    assert len(build_model(name, **SHAPE).stages(IMAGES).maps) == 2
