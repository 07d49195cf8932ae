"""Stand-in for the memory of a GPU, so that the measurement and all that follows run on CPUs."""

import torch

from trainables.process.gpu import GpuReading

GIB = 2**30


class PretendedGpu:
    """Memory of a GPU as the trials would use it: `sizes` are their peaks, in order; None is out of memory."""

    device = "cpu"
    name = "Pretended GPU"

    def __init__(self, total=16 * GIB, in_use=GIB // 2, sizes=(), context=GIB):
        self.total = total
        self._in_use, self._context, self._sizes = in_use, context, list(sizes)
        self._now = None

    def in_use(self):
        return self._in_use if self._now is None else self._context + self._now

    def begin_trial(self):
        self._peak = self._sizes.pop(0) if self._sizes else GIB
        self._now = 0

    def reserved(self):
        if self._peak is None:
            self._peak = 3 * GIB  # reserved before the allocation that failed
            raise torch.OutOfMemoryError("CUDA out of memory")
        self._now = self._peak // 2
        return self._now, self._peak


def reading(total=16, in_use=0.5, context=0.5, reserved=1.0, name="A", out_of_memory=""):
    """Return a reading, with sizes in GiB."""
    total, in_use, context, reserved = (int(each * GIB) for each in (total, in_use, context, reserved))
    return GpuReading(name, total, in_use, context, reserved, "cnn_3_4 with kd in batches of 64", out_of_memory)
