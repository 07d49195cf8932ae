"""Types of the plan options for teacher outputs."""

from typing import Literal

OutputsMode = Literal["auto", "stored", "live"]
OutputsSource = Literal["stored", "live"]
OutputsDtype = Literal["float16", "bfloat16", "float32"]
