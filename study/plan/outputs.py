"""Types of the plan's options for teacher outputs."""

from typing import Final, Literal

from pydantic import ByteSize

OutputsMode = Literal["auto", "stored", "live"]


OutputsSource = Literal["stored", "live"]


OutputsDtype = Literal["float16", "bfloat16", "float32"]


DEFAULT_LIMIT: Final = ByteSize(20 * 2**30)
