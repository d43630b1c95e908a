# SPDX-License-Identifier: MIT
"""ONNX Runtime: MultiHeadAttention and GroupQueryAttention, inputs and outputs bound once."""
import numpy as np

from problem import Unsupported

KINDS = {"f32": np.float32, "f16": np.float16}


def session(nodes, inputs, outputs, threads):
    import onnx
    import onnxruntime as ort

    h = onnx.helper
    kind = {np.float32: 1, np.float16: 10, np.int32: 6}
    value = lambda name, x: h.make_tensor_value_info(name, kind[x.dtype.type], x.shape)
    graph = h.make_graph(nodes, "g", [value(n, x) for n, x in inputs.items()],
                         [value(n, x) for n, x in outputs.items()])
    model = h.make_model(graph, opset_imports=[h.make_opsetid("", 17), h.make_opsetid("com.microsoft", 1)])
    model.ir_version = 9
    o = ort.SessionOptions()
    o.intra_op_num_threads, o.inter_op_num_threads = threads, 1
    o.add_session_config_entry("session.intra_op.allow_spinning", "0")
    s = ort.InferenceSession(model.SerializeToString(), o, ["CPUExecutionProvider"])
    values = {n: ort.OrtValue.ortvalue_from_numpy(x) for n, x in {**inputs, **outputs}.items()}
    bound = s.io_binding()
    return s, bound, values


def joined(x, kind):
    """(B, H, S, D) as (B, S, H D)"""
    return np.ascontiguousarray(x.transpose(0, 2, 1, 3)).reshape(x.shape[0], x.shape[2], -1).astype(kind)


def split(p, value):
    return value.numpy().astype(np.float32).reshape(p.b, p.sq, p.h, p.d).transpose(0, 2, 1, 3)


def mha(p, threads):
    import onnx

    if p.kind != "f32" or p.window:
        raise Unsupported("f32 without a window only")
    if p.b * p.h * p.sq * p.skv > 1 << 29:
        raise Unsupported("all scores at once: too much memory")
    inputs = {"q": joined(p.q, np.float32), "k": joined(p.expanded(p.k), np.float32),
              "v": joined(p.expanded(p.v), np.float32)}
    node = onnx.helper.make_node("MultiHeadAttention", ["q", "k", "v"], ["o"], domain="com.microsoft",
                                 num_heads=p.h, unidirectional=int(p.causal))
    outputs = {"o": np.empty((p.b, p.sq, p.h * p.d), np.float32)}
    s, bound, values = session([node], inputs, outputs, threads)
    for n in inputs:
        bound.bind_ortvalue_input(n, values[n])
    bound.bind_ortvalue_output("o", values["o"])
    return lambda: s.run_with_iobinding(bound), lambda: split(p, values["o"])


def gqa(p, threads):
    import onnx

    if p.kind not in KINDS or not (p.causal or p.decode):
        raise Unsupported("f32 and f16, causal only")
    kind = KINDS[p.kind]
    past = p.skv - p.sq  # decoding: the last key is new, the cache is updated in place
    inputs = {"q": joined(p.q, kind), "k": joined(p.k[:, :, past:], kind), "v": joined(p.v[:, :, past:], kind),
              "past_k": p.k.astype(kind) if past else np.empty((p.b, p.g, 0, p.d), kind),
              "past_v": p.v.astype(kind) if past else np.empty((p.b, p.g, 0, p.d), kind),
              "last": np.full(p.b, p.skv - 1, np.int32), "all": np.array(p.skv, np.int32)}
    outputs = {"o": np.empty((p.b, p.sq, p.h * p.d), kind), "k_out": np.empty(p.k.shape, kind),
               "v_out": np.empty(p.v.shape, kind)}
    window = {"local_window_size": p.window} if p.window else {}
    node = onnx.helper.make_node("GroupQueryAttention", list(inputs), list(outputs), domain="com.microsoft",
                                 num_heads=p.h, kv_num_heads=p.g, **window)
    s, bound, values = session([node], inputs, outputs, threads)
    for n in inputs:
        bound.bind_ortvalue_input(n, values[n])
    share = {"k_out": "past_k", "v_out": "past_v"} if past else {}
    for n in outputs:
        bound.bind_ortvalue_output(n, values[share.get(n, n)])
    return lambda: s.run_with_iobinding(bound), lambda: split(p, values["o"])


PEERS = {"ort MHA": mha, "ort GQA": gqa}
