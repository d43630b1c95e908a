# SPDX-License-Identifier: MIT
"""OpenVINO: ScaledDotProductAttention, keys and values expanded to the query heads beforehand."""
import numpy as np

from problem import Unsupported


def sdpa(p, threads):
    import openvino as ov
    from openvino import opset13

    if p.kind != "f32":
        raise Unsupported("f32 only")
    if p.window:
        raise Unsupported("no window")
    if p.causal and p.sq > 8192:
        raise Unsupported("all scores of a long sequence")
    arrays = [np.ascontiguousarray(x) for x in (p.q, p.expanded(p.k), p.expanded(p.v))]
    inputs = [opset13.parameter(list(x.shape), np.float32) for x in arrays]
    model = ov.Model([opset13.scaled_dot_product_attention(*inputs, causal=p.causal)], inputs)
    compiled = ov.Core().compile_model(model, "CPU", {
        "INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1, "INFERENCE_PRECISION_HINT": "f32"})
    request = compiled.create_infer_request()
    for i, x in enumerate(arrays):
        request.set_input_tensor(i, ov.Tensor(x, shared_memory=True))

    def run(alive=arrays):  # a shared tensor does not keep its array
        request.infer()

    return run, lambda: np.array(request.get_output_tensor(0).data)


PEERS = {"openvino": sdpa}
