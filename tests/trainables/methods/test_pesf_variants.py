"""PESF-KD's variants against references written from the authors' code, in float64.

The references follow github.com/1170300319/PESF-KD at commit d3f6aa8 line by line, and share no code with the losses.
"""

import copy
import itertools

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.trainables.conftest import TEXT, small_config
from trainables.losses.logits import swap_top_and_label
from trainables.losses.parts import LossParts, StepOutputs
from trainables.methods.method import PartsSetting
from trainables.methods.registry import METHODS
from trainables.run.learners import adapter_trainer, build_adapter
from trainables.run.run import DistillationRun
from trainables.spec.methods.pesf_variants import PESF_VARIANTS
from trainables.spec.methods.row_names import method_name
from trainables.spec.trial import TrialConfig
from trainables.steps.adapter import TeacherAdapter
from trainables.steps.sgd import Trainer
from trainables.teacher_outputs.frozen import FrozenTeacher

pytestmark = pytest.mark.study

BATCH, CLASSES, FEATURE, WIDTH = 11, 5, 7, 3


def random_outputs(number: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return student logits, teacher logits, teacher feature and labels."""
    generator = torch.Generator().manual_seed(number)
    student, teacher = 3 * torch.randn(2, BATCH, CLASSES, dtype=torch.float64, generator=generator)
    feature = torch.randn(BATCH, FEATURE, dtype=torch.float64, generator=generator)
    return student, teacher, feature, torch.randint(CLASSES, (BATCH,), generator=generator)


def adapter_of(kind: str, init: str = "default", dropout: float = 0.0) -> TeacherAdapter:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return TeacherAdapter(FEATURE, CLASSES, WIDTH, kind=kind, init=init, dropout=dropout).double()


def pesf_losses(config: TrialConfig, student: Tensor, teacher: Tensor, adapted: Tensor, labels: Tensor) -> LossParts:
    outputs = StepOutputs(student, student, teacher_logits=teacher, adapted_logits=adapted)
    return METHODS["pesf_kd"].objective(config.model_dump())(outputs, labels)


# -- cv/helper/loops.py, cv/models/adapter.py and cv/distiller_zoo/KD.py


class VisionAdapter(nn.Module):
    def __init__(self, w1: nn.Linear, w2: nn.Linear, w3: nn.Linear) -> None:
        super().__init__()
        self.adapter = nn.Sequential(w2, nn.ReLU(), w3)
        self.l1 = nn.Sequential(w1)

    def forward(self, feature: Tensor) -> Tensor:
        return self.adapter(self.l1(feature))


def distil_kl(y_s: Tensor, y_t: Tensor, temperature: float) -> Tensor:
    p_s = functional.log_softmax(y_s / temperature, dim=1)
    p_t = functional.softmax(y_t / temperature, dim=1)
    return functional.kl_div(p_s, p_t, reduction="sum") * (temperature**2) / y_s.shape[0]


def corrected(logits: Tensor, target: Tensor) -> Tensor:
    """Return logits with the largest value and that of the correct class swapped."""
    largest = torch.argmax(logits, dim=1)
    rows = logits.clone().detach().numpy()
    for i in range(len(rows)):
        t = rows[i][largest[i]]
        rows[i][largest[i]] = rows[i][target[i]]
        rows[i][target[i]] = t
    return torch.tensor(rows)


def vision_loss(
    adapter: nn.Module, logit_s: Tensor, logit_t: Tensor, feat_t: Tensor, target: Tensor, *, alpha: float, t: float
) -> Tensor:
    """Return the loss of the authors' vision code."""
    logit_t_cor, logit_s_cor = corrected(logit_t, target), corrected(logit_s, target)
    logit_t = logit_t - adapter(feat_t)
    loss_div = distil_kl(logit_s, logit_t_cor, t) + distil_kl(logit_s_cor, logit_t, t)
    loss_cls = functional.cross_entropy(logit_s, target)
    loss_teacher = functional.cross_entropy(logit_t, target)
    return 1.0 * loss_cls + alpha * loss_div + loss_teacher


@pytest.mark.parametrize("number", range(4))
def test_released_vision_is_the_authors_loss_with_the_authors_gradients(number):
    student, teacher, feature, labels = random_outputs(number)
    released = PESF_VARIANTS["released-vision"].settings
    config = TrialConfig(pesf_variant="released-vision", **{**released, "kd_weight": 1.3})
    adapter = adapter_of("serial")
    theirs = VisionAdapter(*copy.deepcopy((adapter.w1, adapter.w2, adapter.w3)))
    with torch.no_grad():  # they subtract the output, which equals adding it with the last layer negated
        for parameter in theirs.adapter[2].parameters():
            parameter.neg_()

    own_student, their_student = (student.clone().requires_grad_() for _ in range(2))
    parts = pesf_losses(config, own_student, teacher, adapter(feature, teacher), labels)
    total = vision_loss(theirs, their_student, teacher, feature, labels, alpha=1.3, t=6.0)
    torch.testing.assert_close(parts.total, total, rtol=1e-13, atol=0)
    parts.total.backward()
    total.backward()
    torch.testing.assert_close(own_student.grad, their_student.grad, rtol=0, atol=1e-15)
    layers = {"w1": (theirs.l1[0], 1), "w2": (theirs.adapter[0], 1), "w3": (theirs.adapter[2], -1)}
    for name, (layer, sign) in layers.items():
        for kind in ("weight", "bias"):
            own = getattr(getattr(adapter, name), kind).grad
            torch.testing.assert_close(own, sign * getattr(layer, kind).grad, rtol=0, atol=1e-14)


def test_a_step_with_the_mirrored_layer_stays_the_mirror_image():
    # Subtracting the output therefore trains like adding it, if the distribution of the init is symmetric about zero.
    student, teacher, feature, labels = random_outputs(5)
    adapter = adapter_of("serial")
    theirs = VisionAdapter(*copy.deepcopy((adapter.w1, adapter.w2, adapter.w3)))
    with torch.no_grad():
        for parameter in theirs.adapter[2].parameters():
            parameter.neg_()
    config = TrialConfig(pesf_variant="released-vision", **PESF_VARIANTS["released-vision"].settings)
    own = Trainer(adapter, learning_rate=0.05, momentum=0.9, weight_decay=5e-4, schedule="constant", epochs=1)
    sgd = torch.optim.SGD(theirs.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4)
    for _ in range(3):
        own.forget_gradients()
        pesf_losses(config, student, teacher, adapter(feature, teacher), labels).total.backward()
        own.step()
        sgd.zero_grad()
        vision_loss(theirs, student, teacher, feature, labels, alpha=1.0, t=6.0).backward()
        sgd.step()
    torch.testing.assert_close(adapter.w3.weight, -theirs.adapter[2].weight, rtol=0, atol=1e-14)
    torch.testing.assert_close(adapter.w1.weight, theirs.l1[0].weight, rtol=0, atol=1e-14)


def test_the_student_of_released_vision_never_sees_the_adapter():
    student, teacher, _, labels = random_outputs(0)
    config = TrialConfig(pesf_variant="released-vision", ce_weight=0.0)
    gradients = []
    for adapted in (teacher, teacher + torch.randn_like(teacher)):
        leaf = student.clone().requires_grad_()
        pesf_losses(config, leaf, teacher, adapted, labels).total.backward()
        gradients.append(leaf.grad)
    assert torch.equal(*gradients)


def test_swapping_exchanges_the_top_logit_and_the_labels_and_leaves_a_right_prediction():
    logits = torch.tensor([[1.0, 3.0, 2.0], [5.0, 4.0, 0.0]])
    swapped = swap_top_and_label(logits, torch.tensor([2, 0]))
    assert swapped.tolist() == [[1.0, 2.0, 3.0], [5.0, 4.0, 0.0]]


def test_four_added_gradients_of_eleven_samples_are_a_batch_of_forty_four_at_four_times_the_rates():
    # The equivalence documented for `released-vision`, on a network without batch normalisation.
    generator = torch.Generator().manual_seed(3)
    inputs = torch.randn(3, 44, FEATURE, dtype=torch.float64, generator=generator)
    labels = torch.randint(CLASSES, (3, 44), generator=generator)
    first = nn.Linear(FEATURE, CLASSES).double()
    second = copy.deepcopy(first)
    added = torch.optim.SGD(first.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4)
    whole = torch.optim.SGD(second.parameters(), lr=0.2, momentum=0.9, weight_decay=1.25e-4)
    for step in range(3):
        added.zero_grad()
        for part in range(4):
            rows = slice(11 * part, 11 * part + 11)
            functional.cross_entropy(first(inputs[step, rows]), labels[step, rows]).backward()
        added.step()
        whole.zero_grad()
        functional.cross_entropy(second(inputs[step]), labels[step]).backward()
        whole.step()
    torch.testing.assert_close(first.weight, second.weight, rtol=0, atol=1e-14)


# -- nlp/utils_glue.py, nlp/distillation_meta.py and nlp/run_glue_distillation.py


class LanguageAdapter(nn.Module):
    def __init__(self, adapter: TeacherAdapter) -> None:
        super().__init__()
        w1, w2, w3 = copy.deepcopy((adapter.w1, adapter.w2, adapter.w3))
        self.adapter = nn.Sequential(w2, nn.ReLU(), w3, nn.Dropout(0.1))
        self.l1 = nn.Sequential(w1)

    def forward(self, pooled: Tensor) -> Tensor:
        return self.l1(pooled) + self.adapter(pooled)


def language_loss(
    t_logits: Tensor,
    s_logits: Tensor,
    labels: Tensor,
    *,
    alpha: float,
    t: float,
    beta: float = 0.0,
    pkd: Tensor | None = None,
) -> Tensor:
    """Return the loss of the authors' language code."""
    train_loss = functional.cross_entropy(s_logits, labels)
    train_loss = train_loss + functional.cross_entropy(t_logits, labels)
    soft_targets = functional.softmax(t_logits / t, dim=-1)
    probs = functional.softmax(s_logits / t, dim=-1)
    soft_loss = functional.mse_loss(soft_targets, probs) * t * t
    loss = alpha * soft_loss + (1 - alpha) * train_loss
    return loss if pkd is None else loss + beta * pkd


@pytest.mark.parametrize(("number", "training"), itertools.product(range(2), (False, True)))
def test_released_language_is_the_authors_loss_with_the_authors_gradients_and_dropout(number, training):
    student, teacher, feature, labels = random_outputs(number)
    released = PESF_VARIANTS["released-language"].settings
    config = TrialConfig(pesf_variant="released-language", **released)
    adapter = adapter_of("parallel", "normal", dropout=config.adapter_dropout).train(training)
    theirs = LanguageAdapter(adapter).train(training)
    own_student, their_student = (student.clone().requires_grad_() for _ in range(2))
    torch.manual_seed(number)
    parts = pesf_losses(config, own_student, teacher, adapter(feature, teacher), labels)
    torch.manual_seed(number)
    total = language_loss(teacher + theirs(feature), their_student, labels, alpha=0.7, t=5.0)
    torch.testing.assert_close(parts.total, total, rtol=1e-13, atol=0)
    parts.total.backward()
    total.backward()
    torch.testing.assert_close(own_student.grad, their_student.grad, rtol=0, atol=1e-15)
    for name, layer in {"w1": theirs.l1[0], "w2": theirs.adapter[0], "w3": theirs.adapter[2]}.items():
        torch.testing.assert_close(getattr(adapter, name).weight.grad, layer.weight.grad, rtol=0, atol=1e-15)


def test_pkd_with_an_adapter_is_the_released_language_objective_with_its_third_term():
    student, teacher, feature, labels = random_outputs(0)
    generator = torch.Generator().manual_seed(9)
    s_maps = tuple(torch.randn(BATCH, 6, dtype=torch.float64, generator=generator) for _ in range(3))
    t_maps = tuple(torch.randn(BATCH, 6, dtype=torch.float64, generator=generator) for _ in range(5))
    released = {
        name: PESF_VARIANTS["released-language"].settings[name]
        for name in ("temperature", "ce_weight", "kd_weight", "adapter_ce_weight", "distance")
    }
    config = TrialConfig(**{**TEXT, "method": "pkd", "adapter": True, "pkd_weight": 100.0, **released})
    adapted = adapter_of("parallel", "normal")(feature, teacher)
    outputs = StepOutputs(
        student, student, feature, teacher, adapted_logits=adapted, student_maps=s_maps, teacher_maps=t_maps
    )
    parts = METHODS["pkd"].objective(config.model_dump())(outputs, labels)
    # PKD-Skip with a student of 2 layers and a teacher of 4: the student's first layer matches the teacher's second.
    s, t = s_maps[1].numpy(), t_maps[2].numpy()
    s, t = (each / np.linalg.norm(each, axis=1, keepdims=True) for each in (s, t))
    expected = language_loss(adapted, student, labels, alpha=0.7, t=5.0) + 100.0 * ((s - t) ** 2).mean()
    torch.testing.assert_close(parts.total, expected, rtol=1e-13, atol=0)
    assert parts.adapter is not None


# -- settings


def test_the_released_schedule_gives_the_adapter_the_students_rate_from_epoch_151_of_240_on():
    config = TrialConfig(
        epochs=240, adapter_learning_rate=2e-5, adapter_schedule="released", student_learning_rate=0.05
    )
    trainer = adapter_trainer(config, nn.Linear(1, 1), 1)
    rates = []
    for epoch in range(240):
        trainer.begin_epoch(epoch)
        rates.append(trainer.rate)
    # adjust_learning_rate counts epochs from 1. Every group gets 0.05 · 0.1^(number of 150, 180 and 210 below the
    # epoch).
    expected = [2e-5 if e <= 150 else 0.05 * 0.1 ** sum(e > m for m in (150, 180, 210)) for e in range(1, 241)]
    assert rates == pytest.approx(expected)
    assert sum(rates) == pytest.approx(0.1695)
    cosine = adapter_trainer(config.model_copy(update={"adapter_schedule": "cosine"}), nn.Linear(1, 1), 1)
    moved = 0.0
    for epoch in range(240):
        cosine.begin_epoch(epoch)
        moved += cosine.rate
    assert moved == pytest.approx(0.0024, abs=5e-5)


@pytest.mark.parametrize(("epochs", "late"), [(1, []), (3, [2]), (15, [10, 11, 12, 13, 14]), (8, [5, 6, 7])])
def test_the_released_schedule_is_scaled_to_the_epochs_of_a_study(epochs, late):
    config = TrialConfig(epochs=epochs, adapter_learning_rate=2e-5, adapter_schedule="released")
    trainer = adapter_trainer(config, nn.Linear(1, 1), 1)
    fast = []
    for epoch in range(epochs):
        trainer.begin_epoch(epoch)
        fast += [epoch] if trainer.rate != 2e-5 else []
    assert fast == late


def test_the_normal_init_is_that_of_bert(teacher: FrozenTeacher):
    config = small_config(adapter_init="normal", adapter_width=512)
    adapter = build_adapter(config, teacher.head, torch.device("cpu"))
    assert all(not parameter.any() for name, parameter in adapter.named_parameters() if name.endswith("bias"))
    weights = torch.cat([p.detach().flatten() for name, p in adapter.named_parameters() if name.endswith("weight")])
    assert float(weights.std()) == pytest.approx(0.02, rel=0.05)
    assert abs(float(weights.mean())) < 0.001


def test_only_the_student_is_clipped_if_the_adapter_is_left_out():
    for clipped, limit in ((True, 0.5), (False, 0.0)):
        trainer = adapter_trainer(TrialConfig(clip_norm=0.5, adapter_clip=clipped), nn.Linear(1, 1), 1)
        assert trainer._clip_norm == limit


@pytest.mark.parametrize("variant", ["released-vision", "released-language"])
def test_a_released_variant_has_no_closed_form_and_dropout_has_none_either(variant, digits, teacher):
    settings = {"distance": PESF_VARIANTS[variant].settings.get("distance", "kl"), "pesf_variant": variant}
    assert METHODS["pesf_kd"].gradients(small_config(**settings).model_dump()) is None
    assert METHODS["pesf_kd"].gradients(small_config().model_dump()) is not None
    assert DistillationRun(small_config(adapter_dropout=0.1), digits, teacher).closed_form is None


def test_a_variant_that_contradicts_another_setting_is_refused():
    with pytest.raises(ValueError, match="'released-language' measures the distance 'mse', not 'kl': set distance=mse"):
        TrialConfig(pesf_variant="released-language")
    with pytest.raises(ValueError, match="imposes no gap, and gap_control is 'paper': choose gap_control none"):
        TrialConfig(pesf_variant="released-vision", gap_control="paper")
    # Other methods do not read the setting.
    assert TrialConfig(method="kd", pesf_variant="released-language").method == "kd"


def test_every_variant_names_its_source_and_is_a_valid_trial():
    for name, variant in PESF_VARIANTS.items():
        assert variant.objective
        assert variant.source
        assert variant.deviations
        config = TrialConfig(pesf_variant=name, **variant.settings)
        assert set(variant.settings) <= config.method_spec.fields


# -- the README's `--distill crd -a 1 -b 0.8`


@pytest.mark.parametrize("variant", ["paper", "released-vision"])
def test_crd_with_an_adapter_is_the_sum_of_the_authors_code(variant):
    student, teacher, feature, labels = random_outputs(1)
    config = TrialConfig(
        method="crd", adapter=True, pesf_variant=variant, temperature=6.0, kd_weight=0.8, adapter_kd_weight=1.5,
        crd_negatives=4, crd_dim=3,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(2)
        setting = PartsSetting(student_dim=FEATURE, teacher_dim=FEATURE, labels=labels)
        memory = METHODS["crd"].build_parts(config.model_dump(), setting).double()
    student_feature = random_outputs(2)[2]

    def outputs(**more: object) -> StepOutputs:
        generator = torch.Generator().manual_seed(4)
        return StepOutputs(
            student_feature, student, feature, teacher, parts=copy.deepcopy(memory), indices=torch.arange(BATCH),
            generator=generator, **more,
        )  # fmt: skip

    adapter = adapter_of("serial")
    theirs = VisionAdapter(*copy.deepcopy((adapter.w1, adapter.w2, adapter.w3)))
    with torch.no_grad():
        for parameter in theirs.adapter[2].parameters():
            parameter.neg_()
    objective = METHODS["crd"].objective(config.model_dump())
    alone = objective(outputs(), labels)
    assert alone.adapter_kd is None
    parts = objective(outputs(adapted_logits=adapter(feature, teacher)), labels)
    adapted = teacher - theirs(feature)
    loss_div = distil_kl(student, adapted, 6.0)
    if variant == "released-vision":
        loss_div = distil_kl(student, corrected(teacher, labels), 6.0) + distil_kl(
            corrected(student, labels), adapted, 6.0
        )
    gamma, alpha, beta = 1.0, 1.5, 0.8
    expected = gamma * functional.cross_entropy(student, labels) + alpha * loss_div + beta * alone.kd
    expected = expected + functional.cross_entropy(adapted, labels)
    torch.testing.assert_close(parts.total, expected, rtol=1e-13, atol=0)
    torch.testing.assert_close(parts.adapter_kd, loss_div, rtol=1e-13, atol=0)


def test_an_adapter_beside_another_method_refuses_the_objective_for_text():
    with pytest.raises(ValueError, match="'released-language' goes with pesf_kd alone"):
        TrialConfig(method="crd", adapter=True, pesf_variant="released-language")
    assert TrialConfig(method="crd", pesf_variant="released-language").method == "crd"


def test_the_names_of_rows_tell_variants_and_adapters_apart():
    assert method_name({"method": "crd", "adapter": True}) == "crd+adapter"
    assert (
        method_name({"method": "crd", "adapter": True, "pesf_variant": "released-vision"})
        == "crd+adapter+released-vision"
    )
    assert method_name({"method": "pesf_kd", "adapter": True, "pesf_variant": "paper"}) == "pesf_kd"
    assert method_name({"method": "pesf_kd", "pesf_variant": "released-vision"}) == "pesf_kd+released-vision"
    assert method_name({"method": "kd", "pesf_variant": "released-vision"}) == "kd"
    assert method_name({"method": "dkd", "adapter": None, "pesf_variant": None}) == "dkd"
