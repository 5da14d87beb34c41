"""The private torch operators that `unidiff/model/packing.py` calls exist and multiply."""

import torch


def test_onednn_reorders_a_weight_and_multiplies_by_it():
    weight, bias = torch.randn(6, 8), torch.randn(6)
    packed = torch.ops.mkldnn._reorder_linear_weight(weight)
    hidden = torch.randn(2, 3, 8)
    product = torch.ops.mkldnn._linear_pointwise(hidden, packed, bias, "none", [], "")
    torch.testing.assert_close(product, torch.nn.functional.linear(hidden, weight, bias))
