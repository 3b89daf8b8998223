"""ONNX: written, run and made smaller.

The exporter is the one that traces: it needs no package but `onnx`, and lengths stay free, for no network here asks for a value
to go on.
"""

from __future__ import annotations

import importlib.util
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.errors import UserError

if TYPE_CHECKING:
    import onnxruntime

#: Largest difference to the networks that is let through.
PARITY = 1e-4
OPSET = 18
PACKAGES = ("onnx", "onnxruntime")


def check_packages() -> None:
    """
    Raises:
        UserError: a package of the extra `export` is not installed.
    """
    if lacking := [name for name in PACKAGES if importlib.util.find_spec(name) is None]:
        raise UserError(f"ONNX needs {' and '.join(lacking)}: pip install -c constraints.txt -r requirements-export.txt")


def trace(network: nn.Module, *args: Any, **kwargs: Any) -> None:
    """Write a network, see `torch.onnx.export`.

    Raises:
        UserError: it has a part that ONNX cannot hold.
    """
    try:
        torch.onnx.export(network, *args, dynamo=False, **kwargs)
    except (torch.onnx.errors.OnnxExporterError, torch.onnx.errors.SymbolicValueError) as error:
        why = str(error).splitlines()[0][:200]
        raise UserError(f"this model has a part that ONNX cannot hold ({why}); leave out --onnx.") from error


def open_session(path: Path) -> onnxruntime.InferenceSession:
    """One thread, on the processor."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4  # what goes wrong is raised as well
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def run_session(session: onnxruntime.InferenceSession, inputs: dict[str, Tensor]) -> dict[str, np.ndarray]:
    """Outputs by name; inputs that the graph does not read are left out."""
    read = {one.name for one in session.get_inputs()}
    names = [one.name for one in session.get_outputs()]
    found: list[Any] = session.run(names, {name: x.numpy() for name, x in inputs.items() if name in read})
    return dict(zip(names, found, strict=True))


def write_eight_bits(source: Path, path: Path) -> bool:
    """The same with weights of matrices in eight bits, and what they are multiplied with made so as it comes (dynamic).

    Each column of a matrix has a scale of its own: with one for all, a small encoder says something else (all-MiniLM-L6-v2 on
    dialogue: cosine 0.924, so 0.987). Convolutions stay as they are: there is no kernel for those of signed weights.

    Returns:
        Whether any weight is in eight bits.
    """
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from onnxruntime.quantization.registry import IntegerOpsRegistry

    kinds = [kind for kind in IntegerOpsRegistry if kind != "Conv"]
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)  # a line for every tensor, from the root logger
    try:
        quantize_dynamic(str(source), str(path), op_types_to_quantize=kinds, per_channel=True, weight_type=QuantType.QInt8)
    finally:
        logging.disable(before)
    weights = onnx.load(str(path), load_external_data=False).graph.initializer
    return any(one.data_type == onnx.TensorProto.INT8 and len(one.dims) > 1 for one in weights)
