"""What an artefact may differ from base and adapter, by its format.

The limits come from measurements, on a model that suffers more from rounding than any that one
would serve: SmolLM2-135M with two adapters (rank 16, all linear layers) of the ICD-10 task, one
trained for 80 steps and one for 8, which leaves the model in doubt at most tokens. Held-out rows,
277 scored tokens, computed in fp32; divergence in nats, agreement of the likeliest token, and what
the loss rises by. The weights were shaken before, since they came out of a 4-bit file, whose grid
4-bit formats of 32 weights a block fall back to.

    ================  =======================  =======================
    format            80 steps                 8 steps
    ================  =======================  =======================
    bf16              0.00004   100 %  +0.00   0.0003   99.6 %  +0.01
    bf16, in bf16     0.0003     99 %  +0.00   0.0023   96.4 %  +0.01
    8 bits of 32      0.0009    100 %  +0.00   0.002    96.4 %  -0.02
    6 bits of 16      0.004      99 %  +0.01   0.020    90 %    -0.03
    5 bits of 32      0.03       99 %  +0.03   0.07     84 %    +0.21
    4 bits of 32      0.15       97 %  +0.14   0.42     61 %    +0.54
    NF4               0.07       95 %  +0.04   0.23     68 %    +0.37
    W4A16             0.16       93 %  +0.12   0.46     62 %    +0.13
    without adapter   2.7        17 %  +5.3    1.4      29 %    +3.3
    ================  =======================  =======================

Faults in the bf16 merge of the second adapter, for comparison: scale doubled 0.50, scale halved
0.45, three last layers of thirty left out 0.11, two neighbouring layers exchanged 0.011, one layer
left out 0.004 to 0.017. "bf16, in bf16" is also computed in bf16,
as large models are; "n bits of m" stands for llama.cpp's formats, without its mixing of them.
"""

from typing import NamedTuple

from configs.schema import ArtefactFormat


class Limits(NamedTuple):
    """Of one format.

    kl_mean: the largest mean divergence in nats; top1_agreement: the smallest share of tokens with
    the same likeliest one; loss_increase: by how many nats the held-out loss may be higher.
    """

    kl_mean: float
    top1_agreement: float
    loss_increase: float


LIMITS: dict[ArtefactFormat, Limits] = {
    "bf16": Limits(kl_mean=0.004, top1_agreement=0.95, loss_increase=0.02),
    "f16": Limits(kl_mean=0.004, top1_agreement=0.95, loss_increase=0.02),
    "q8_0": Limits(kl_mean=0.015, top1_agreement=0.93, loss_increase=0.03),
    "q6_k": Limits(kl_mean=0.06, top1_agreement=0.85, loss_increase=0.06),
    "q5_k_m": Limits(kl_mean=0.2, top1_agreement=0.75, loss_increase=0.25),
    "q4_k_m": Limits(kl_mean=0.6, top1_agreement=0.55, loss_increase=0.6),
    "nf4": Limits(kl_mean=0.6, top1_agreement=0.55, loss_increase=0.5),
    "w4a16": Limits(kl_mean=0.6, top1_agreement=0.55, loss_increase=0.5),
}
