"""Static quantisation of an exported student to int8, by ONNX Runtime.

Weights and activations become 8-bit integers, as pairs of QuantizeLinear and DequantizeLinear around each operator
(QDQ), which runtimes fuse to integer kernels. Weights have a scale per output channel and no zero point. Activations
have one scale per tensor, from their smallest and largest value on the calibration images (min-max). The normalisation
of the images, before the first convolution or matrix product, stays in float32, and so do input and output: the program
takes the same uint8 images and returns float32 logits.
"""

import tempfile
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from trainables.students.deployment import open_program
from trainables.students.export import IMAGES, OUTPUT, ExportError, silenced

CALIBRATION_IMAGES: Final = 512
CALIBRATION_SEED: Final = 0
_CALIBRATION_BATCH: Final = 32
_EVALUATION_BATCH: Final = 256
_PRODUCTS: Final = ("Conv", "Gemm", "MatMul")


def calibration_indices(count: int) -> Tensor:
    """Return the calibration images' positions among the training images, drawn by `CALIBRATION_SEED`.

    Args:
        count: number of training images; all are used if there are no more than `CALIBRATION_IMAGES`.
    """
    random = torch.Generator().manual_seed(CALIBRATION_SEED)
    return torch.randperm(count, generator=random)[:CALIBRATION_IMAGES].sort().values


class _Reader:
    """Calibration batches, with the reader method required by ONNX Runtime."""

    def __init__(self, images: Tensor) -> None:
        self._batches = iter([{IMAGES: each.numpy()} for each in images.split(_CALIBRATION_BATCH)])

    def get_next(self) -> dict[str, Any] | None:
        """Return the next batch, or None after the last one."""
        return next(self._batches, None)


def quantised(content: bytes, images: Tensor) -> bytes:
    """Quantise an ONNX program for images.

    Args:
        content: float program content.
        images: (N, channels, H, W) uint8, calibration images.

    Returns:
        Content of the int8 program, with the float program's metadata.

    Raises:
        ExportError: ONNX Runtime cannot quantise the program.
    """
    import onnx
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    given = onnx.load_model_from_string(content)
    with tempfile.TemporaryDirectory() as folder, silenced():
        source, prepared, target = (Path(folder) / f"{name}.onnx" for name in ("float", "prepared", "int8"))
        source.write_bytes(content)
        try:
            quant_pre_process(
                str(source), str(prepared), skip_symbolic_shape=True
            )  # folds normalisation into convolutions
            quantize_static(
                str(prepared),
                str(target),
                _Reader(images),
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                activation_type=QuantType.QInt8,
                weight_type=QuantType.QInt8,
                nodes_to_exclude=_before_products(onnx.load(str(prepared)).graph),
            )
            model = onnx.load(str(target))
        except Exception as error:  # the quantiser raises any type
            raise ExportError(f"ONNX Runtime cannot quantise the program: {type(error).__name__}: {error}") from error
    onnx.helper.set_model_props(model, {each.key: each.value for each in given.metadata_props})
    result: bytes = model.SerializeToString()
    return result


def with_facts(content: bytes, facts: dict[str, str]) -> bytes:
    """Return an ONNX program with further metadata."""
    import onnx

    model = onnx.load_model_from_string(content)
    onnx.helper.set_model_props(model, {each.key: each.value for each in model.metadata_props} | facts)
    result: bytes = model.SerializeToString()
    return result


def integer_operators(content: bytes) -> int:
    """Count a program's convolutions and matrix products with fully quantised inputs."""
    import onnx

    graph = onnx.load_model_from_string(content).graph
    quantised_values = {name for node in graph.node if node.op_type == "DequantizeLinear" for name in node.output}
    return sum(
        node.op_type in _PRODUCTS and all(name in quantised_values for name in node.input[:2]) for node in graph.node
    )


def _before_products(graph: Any) -> list[str]:
    """Return the node names between the images and the first convolution or matrix product."""
    reached, found = {graph.input[0].name}, []
    for node in graph.node:  # in topological order
        if node.op_type in _PRODUCTS or not any(name in reached for name in node.input):
            continue
        found.append(node.name)
        reached.update(node.output)
    return found


def check_program(content: bytes, shape: tuple[int, ...], classes: int, batches: tuple[int, ...]) -> None:
    """Run a program for all batch sizes, and require finite logits of the right shape.

    Raises:
        ExportError: the program fails, or returns other logits.
    """
    session = open_program(content, threads=1)
    for batch in batches:
        images = np.random.default_rng(batch).integers(0, 256, (batch, *shape), dtype=np.uint8)
        try:
            (logits,) = session.run([OUTPUT], {IMAGES: images})
        except Exception as error:  # the runtime raises any type
            raise ExportError(f"the int8 program fails on a batch of {batch}: {error}") from error
        if logits.shape != (batch, classes) or not np.isfinite(logits).all():
            raise ExportError(f"the int8 program returns logits of shape {logits.shape}, or infinite ones")


def accuracy_of(content: bytes, images: Tensor, labels: Tensor, *, threads: int) -> float:
    """Return a program's share of correctly classified images.

    Args:
        content: ONNX file content.
        images: (N, channels, H, W) uint8.
        labels: (N,) int64.
        threads: thread count.
    """
    session = open_program(content, threads=threads)
    correct = 0
    for batch, targets in zip(images.split(_EVALUATION_BATCH), labels.split(_EVALUATION_BATCH), strict=True):
        (logits,) = session.run([OUTPUT], {IMAGES: batch.contiguous().numpy()})
        correct += int((logits.argmax(axis=1) == targets.numpy()).sum())
    return correct / len(labels)
