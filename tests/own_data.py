"""Small datasets of scikit-learn's digits in the formats of users."""

import io
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from sklearn.datasets import load_digits

Parts = dict[str, tuple[np.ndarray, np.ndarray]]


def digits(train: int = 200, test: int = 60, validation: int = 0) -> Parts:
    """Images (N, 8, 8) uint8 and labels (N,) int64 of each part."""
    source = load_digits()
    images, labels = (source.images * 15).astype(np.uint8), source.target.astype(np.int64)
    sizes = {"train": train, "test": test, "validation": validation}
    found, first = {}, 0
    for part, size in sizes.items():
        if size:
            found[part] = images[first : first + size], labels[first : first + size]
        first += size
    return found


def write_npz(path: Path, parts: Parts) -> Path:
    """Write arrays under the names of Keras."""
    path.parent.mkdir(parents=True, exist_ok=True)
    arrays = {}
    for part, (images, labels) in parts.items():
        arrays |= {f"x_{part}": images, f"y_{part}": labels}
    np.savez(path, **arrays)
    return path


def png(image: np.ndarray) -> bytes:
    """An image as PNG."""
    content = io.BytesIO()
    Image.fromarray(image).save(content, "PNG")
    return content.getvalue()


def hub_table(images: np.ndarray, labels: np.ndarray, names: tuple[str, ...] = ()) -> pa.Table:
    """A table as Hugging Face `datasets` writes it."""
    rows = [{"bytes": png(image), "path": None} for image in images]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    table = pa.table({"image": pa.array(rows, kind), "label": pa.array(labels.tolist(), pa.int64())})
    if not names:
        return table
    features = {"image": {"_type": "Image"}, "label": {"names": list(names), "_type": "ClassLabel"}}
    return table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})


def write_parquet(folder: Path, parts: Parts, names: tuple[str, ...] = ()) -> Path:
    """Write `data/train-00000-of-00001.parquet` and so on."""
    (folder / "data").mkdir(parents=True, exist_ok=True)
    for part, (images, labels) in parts.items():
        pq.write_table(hub_table(images, labels, names), folder / "data" / f"{part}-00000-of-00001.parquet")
    return folder
