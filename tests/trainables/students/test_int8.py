"""Quantisation of a student's program, compared with the formula in float64."""

import json

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from trainables.data import load_dataset
from trainables.models import CheckpointInfo, build_model
from trainables.process.randomness import seeded
from trainables.students.deployment import as_function, open_program
from trainables.students.export import CHECKED_BATCHES, ExportError, program_of
from trainables.students.file import KeptStudent, Student
from trainables.students.int8 import (
    CALIBRATION_IMAGES,
    accuracy_of,
    calibration_indices,
    check_program,
    integer_operators,
    quantised,
)

pytestmark = pytest.mark.unit


@pytest.fixture(scope="module")
def data():
    return load_dataset("digits", None)


@pytest.fixture(scope="module")
def kept(data):
    with seeded(3):
        model = build_model("cnn_3_4", num_classes=10, in_channels=1).eval()
    student = Student(model, CheckpointInfo("cnn_3_4", 10, 1, data.mean, data.std, data.digest), "")
    images = data.validation.images[:2]
    return KeptStudent(student, images, student.logits(images))


@pytest.fixture(scope="module")
def programs(kept, data):
    floating = program_of(kept, "onnx", {"study": "s"})
    return floating, quantised(floating, data.train.images[calibration_indices(len(data.train))])


def test_weights_have_a_scale_per_output_channel_by_the_largest_magnitude(programs, kept):
    graph = onnx.load_model_from_string(programs[1]).graph
    held = {each.name: numpy_helper.to_array(each) for each in graph.initializer}
    nodes = {name: node for node in graph.node for name in node.output}
    last = next(node for node in graph.node if node.op_type in ("Gemm", "MatMul"))
    weights = nodes[last.input[1]]
    assert weights.op_type == "DequantizeLinear"
    integers, scales, zeros = (held[name] for name in weights.input)
    assert integers.dtype == np.int8
    assert not zeros.any()
    exact = kept.student.model.head.weight.detach().double().numpy()
    (axis,) = [each.i for each in weights.attribute if each.name == "axis"]
    by_channel = np.moveaxis(integers, axis, 0)
    exact = exact if by_channel.shape == exact.shape else exact.T
    expected = np.abs(exact).max(axis=1) / 127
    np.testing.assert_allclose(scales, expected, rtol=1e-5)
    np.testing.assert_array_equal(by_channel, np.clip(np.rint(exact / expected[:, None]), -127, 127))


def test_every_product_is_in_int8_and_the_normalisation_is_not(programs):
    assert integer_operators(programs[0]) == 0
    assert integer_operators(programs[1]) == 3
    graph = onnx.load_model_from_string(programs[1]).graph
    assert graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.UINT8
    first = next(node for node in graph.node if node.op_type == "QuantizeLinear")
    makers = {name: node.op_type for node in graph.node for name in node.output}
    assert makers[first.input[0]] in ("Add", "Mul")  # the normalised images, quantised once


def test_the_int8_program_is_close_to_the_float_program_and_keeps_its_metadata(programs, data):
    images = data.validation.images
    floating, integer = (as_function(open_program(each, threads=1))(images) for each in programs)
    assert not torch.equal(floating, integer)
    assert (floating - integer).abs().max() < 0.1 * (floating.max() - floating.min())
    metadata = [{p.key: p.value for p in onnx.load_model_from_string(each).metadata_props} for each in programs]
    assert metadata[0]["study"] == metadata[1]["study"] == "s"
    assert json.dumps(metadata[0]) == json.dumps(metadata[1])
    check_program(programs[1], (1, 8, 8), 10, CHECKED_BATCHES)


def test_the_accuracy_is_the_share_of_correct_predictions(programs, kept, data):
    split = data.validation
    predicted = kept.student.logits(split.images).argmax(dim=1)
    assert accuracy_of(programs[0], split.images, split.labels, threads=1) == pytest.approx(
        float((predicted == split.labels).double().mean()), abs=1e-9
    )


def test_quantising_again_gives_the_same_bytes(programs, data):
    images = data.train.images[calibration_indices(len(data.train))]
    assert quantised(programs[0], images) == programs[1]


def test_calibration_images_are_drawn_once_and_all_are_taken_if_there_are_few():
    many = calibration_indices(10_000)
    assert len(many) == len(set(many.tolist())) == CALIBRATION_IMAGES
    assert torch.equal(many, calibration_indices(10_000))
    assert int(many.max()) > 9_000
    assert calibration_indices(3).tolist() == [0, 1, 2]


def test_a_program_that_is_none_is_refused(data):
    with pytest.raises(ExportError, match="cannot quantise"):
        quantised(onnx.helper.make_model(onnx.helper.make_graph([], "empty", [], [])).SerializeToString(),
                  data.train.images[:4])  # fmt: skip


def test_a_program_with_other_logits_than_the_classes_is_refused(programs):
    with pytest.raises(ExportError, match="shape"):
        check_program(programs[1], (1, 8, 8), 9, (2,))
