"""Write the graphs of `tests/upstream/small_onnx.py`: `PYTHONPATH=. python tests/golden/onnx/make.py` (needs `onnx`).

`encoder.onnx` takes (B, T) and gives two layers (B, F, D); `masked.onnx` takes lengths too, sets samples past them to
zero, and gives (B, D, F); `sample_mask.onnx` takes a mask (B, T) of samples instead; `speaker.onnx` takes (B, 1, T) and
gives (B, 6), and the frames that lead to it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from tests.upstream.small_onnx import STRIDES, weights

FOLDER = Path(__file__).parent
FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64


def convolutions(sound: str) -> list[Any]:
    """From a tensor (B, 1, T) to `channels` (B, D, F)."""
    return [
        helper.make_node("Conv", [sound, "first.weight", "first.bias"], ["low"], strides=[STRIDES[0]]),
        helper.make_node("Relu", ["low"], ["active"]),
        helper.make_node("Conv", ["active", "second.weight", "second.bias"], ["channels"], strides=[STRIDES[1]]),
    ]


def save(name: str, nodes: list[Any], inputs: list[Any], outputs: list[Any], used: set[str], **constants: Any) -> None:
    """Check a graph and write it."""
    tensors = {name: value for name, value in weights().items() if name in used}
    tensors |= {name: np.array(value, dtype=np.int64) for name, value in constants.items()}
    values = [numpy_helper.from_array(value, each) for each, value in tensors.items()]
    graph = helper.make_graph(nodes, name, inputs, outputs, values)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    (FOLDER / f"{name}.onnx").write_bytes(model.SerializeToString(deterministic=True))


def main() -> None:
    """Write all four."""
    both = {"first.weight", "first.bias", "second.weight", "second.bias"}
    waveforms = helper.make_tensor_value_info("waveforms", FLOAT, ["batch", "time"])
    lengths = helper.make_tensor_value_info("lengths", INT64, ["batch"])
    frames = [helper.make_tensor_value_info(each, FLOAT, ["batch", "frames", 12]) for each in ("frames", "squares")]
    as_channel = helper.make_node("Unsqueeze", ["waveforms", "one"], ["sound"])
    ends = [
        helper.make_node("Transpose", ["channels"], ["frames"], perm=[0, 2, 1]),
        helper.make_node("Mul", ["frames", "frames"], ["squares"]),
    ]
    save("encoder", [as_channel, *convolutions("sound"), *ends], [waveforms], frames, both, one=[1])

    masking = [
        helper.make_node("Shape", ["waveforms"], ["shape"]),
        helper.make_node("Gather", ["shape", "index"], ["time"]),
        helper.make_node("Range", ["start", "time", "index"], ["places"]),
        helper.make_node("Unsqueeze", ["lengths", "one"], ["column"]),
        helper.make_node("Less", ["places", "column"], ["valid"]),
        helper.make_node("Where", ["valid", "waveforms", "silence"], ["kept"]),
        helper.make_node("Unsqueeze", ["kept", "one"], ["sound"]),
        helper.make_node("Cast", ["start"], ["silence"], to=FLOAT),
    ]
    masking.insert(5, masking.pop())
    channels = [helper.make_tensor_value_info("channels", FLOAT, ["batch", 12, "frames"])]
    save("masked", [*masking, *convolutions("sound")], [waveforms, lengths], channels, both, one=[1], index=1, start=0)

    mask = helper.make_tensor_value_info("attention_mask", INT64, ["batch", "time"])
    weighting = [
        helper.make_node("Cast", ["attention_mask"], ["weight"], to=FLOAT),
        helper.make_node("Mul", ["waveforms", "weight"], ["kept"]),
        helper.make_node("Unsqueeze", ["kept", "one"], ["sound"]),
    ]
    save("sample_mask", [*weighting, *convolutions("sound"), ends[0]], [waveforms, mask], frames[:1], both, one=[1])

    sound = helper.make_tensor_value_info("sound", FLOAT, ["batch", 1, "time"])
    vector = helper.make_tensor_value_info("vector", FLOAT, ["batch", 6])
    pooling = [
        ends[0],
        helper.make_node("ReduceMean", ["frames"], ["mean"], axes=[1], keepdims=0),
        helper.make_node("MatMul", ["mean", "projection"], ["vector"]),
    ]
    used = both | {"projection"}
    save("speaker", [*convolutions("sound"), *pooling], [sound], [frames[0], vector], used)


if __name__ == "__main__":
    main()
