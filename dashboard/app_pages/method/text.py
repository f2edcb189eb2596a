"""Words of the Method page. Numbers come from core and are filled in by the page."""

from __future__ import annotations

KINDS = (
    ("exact", "Counted: parameters, layers, stored tensor bytes.", "Size, counts"),
    ("prior", "The score of a rule of thumb; no data.", "Theory, importance, empirical rules"),
    (
        "projected",
        "From a model of layers measured one at a time; always with a 90 % range.",
        "Loss in accuracy or in another metric, KL, relative MSE, flips",
    ),
    ("estimated", "From a cost model of a device; with a plausible range.", "Latency, speed-up"),
    (
        "measured",
        "From running the thing.",
        "Accuracy or metric in FP32, output error of single layers",
    ),
)

STATES = (
    (
        "computes",
        "The layer's kernel works on integers: smaller and faster.",
        "linear, convolution, products of activations, LSTM",
    ),
    (
        "stores",
        "Its weight is kept as integers, and it computes in float: smaller, not faster.",
        "embedding tables, GRU",
    ),
    (
        "rounds output",
        "It runs in float between quantize and dequantize; only its output is rounded.",
        "layer norm, GELU, pooling",
    ),
    (
        "rounds input",
        "It runs in float between dequantize and what follows; only its input is rounded.",
        "layer norm under OpenVINO",
    ),
    (
        "float",
        "The target has no kernel and rounds nothing: asked for INT8, it is built in float.",
        "GELU and layer norm under TensorRT",
    ),
    (
        "nothing",
        "It is no operation at inference and has no precision.",
        "dropout, a batch norm folded into the layer before it",
    ),
)

PROJECTION = (
    "*y* are the model's outputs in FP32 on the selection samples. Δ*yᵢ* is their change when "
    "layer *i* alone is in precision *pᵢ*, measured by simulation or, of an ONNX file, on ONNX "
    "Runtime; *C* combines these changes. "
    "*rₚ* is what the layers do together beyond that, from one run with everything in *p*, and "
    "*uₚ* is the share of layer pairs, weighted by energy, that this map brings together in *p*: "
    "0 for one layer, 1 for all, so single layers and uniform maps are exact. Layers interact "
    "differently from model to model, so there are several forms ({forms}); the one that best "
    "predicts a dozen simulated whole maps is used. Accuracy (%), its loss (points), KL divergence "
    "(nats) and flips (% of answers that change) are computed from the projected outputs, "
    "sample by sample. The 90 % range adds two errors: of the sample (paired proportions) and of "
    "the projection itself, learnt from those whole maps. Below {few} samples a projection is "
    "coarse, and the page says so."
)

TASKS = (
    ("classification", "logits, one class per sample", "accuracy", "points of accuracy",
     "KL divergence, flips"),
    ("sequence", "logits, one class per step", "accuracy over the steps that count",
     "points of accuracy", "KL divergence, flips"),
    ("regression", "values", "RMSE, root mean square error", "% of the FP32 model's RMSE",
     "relative MSE"),
    ("sequence of values", "values at every step", "RMSE over the steps",
     "% of the FP32 model's RMSE", "relative MSE"),
    ("custom", "values", "your own metric, by its name", "% of the FP32 model's metric",
     "relative MSE"),
)  # fmt: skip

VALUES = (
    "**Values.** Relative MSE, Σ‖ŷ(map) − y‖² / Σ‖y − ȳ‖², says how far the outputs move, in "
    "shares of their variance; it needs no labels and takes the place of KL. RMSE follows from "
    "the projected outputs, sample by sample. A metric of your own cannot be called any more when "
    "a map is projected: its changes were measured with one layer at a time, on the whole split "
    "and on resamples of it, and are combined like outputs. A loss is positive where the metric "
    "gets worse, whichever way it points, and n/a where the FP32 model's metric is 0.  \n"
    "**Without labels** no loss is known: it reads n/a, and KL or relative MSE stands in its "
    "place. A classifier cannot lose more than the predictions that flip. **Optimistic** marks "
    "figures from the very samples that set the ranges of activations.  \n"
    "**Groups.** Layers that a runtime must keep in one precision move together, in the widest "
    "that the strategy gives any of them. A pin or an override beats the group; where it takes "
    "one layer out, the map says so."
)

PROJECTION_FAILS = (
    "**When it fails.** Layers that interact in a way that none of the forms describes; "
    "calibration data unlike the data in use, since ranges are set on it; a target that rounds "
    "other tensors than the scheme does; too few samples. A layer whose output is not "
    "finite in a precision (overflow) is forbidden there: the map is then not projected at all, "
    "and the loss reads n/a."
)

COSTS = (
    "**Size (bytes, exact)**: *nₜ* elements of tensor *t* at *b* bits, and for integers *cₜ* "
    "channels with a scale of {scale} bytes and a zero point of {zero} byte each; a quantized "
    "product's bias takes {bias} bytes an element. A layer without an integer kernel keeps its "
    "float tensors. MB is 10^6 bytes.  \n"
    "**Latency (ms, estimated)**: the longer of computing and moving bytes. *P* is the device's "
    "peak (multiply-accumulates per second) in the precision it runs, *B* its bandwidth (bytes "
    "per second), *e* the share of the peak that real kernels reach, *o* the overhead of a launch "
    "(s). Where two neighbours disagree on the form of a tensor, it is converted, which costs "
    "time too: mixed maps can be slower than uniform ones. One sample at a time."
)

ADVICE = (
    "A map is **avoid** when a layer overflows or the projected loss may exceed {avoid:g} points, "
    "or as many percent of a metric, "
    "in its 90 % range; **cautious** when it may exceed {proceed:g} points, when the map is "
    "estimated slower than FP32, or when it saves less than {reduction:g} % of the size; "
    "otherwise **proceed**. A map that breaks its loss budget is cautious too; where that budget is "
    "kept by the point, the point is read in place of the upper end. Before anything is measured the rules alone speak: at least "
    "{quantizable:g} % of the computing layers quantizable is cautious, less is avoid.  \n"
    "Recommended for *production*: the fastest named strategy that stays within {proceed:g} "
    "points; for *edge*: the smallest within {edge:g}; for *high precision*: the smallest within "
    "{high:g}; each over the whole 90 % range."
)

GLOSSARY = (
    ("Layer", ("a decision: what one precision is given to. A unit (attention, feed-forward) or a "
     "leaf module.")),
    ("Map", "one precision for every layer."),
    ("Policy", "everything you chose; the address of this page carries it."),
    ("Pinned map", "the map that later ones are held against."),
    ("Selection, holdout", "samples on which maps are compared; samples that no choice has seen."),
    ("KL divergence", ("how far the output probabilities move from those in FP32, in nats; 0 = not "
     "at all.")),
    ("Flip", "an answer (a sample, in a sequence a step) whose most likely class changes."),
    ("Relative MSE", ("mean squared change of the outputs over their variance in FP32; "
     "0 = not at all.")),
    ("Group", "layers that share one precision."),
    ("Margin", "how far the largest logit lies above the second; what is lost of it nears a flip."),
    ("Resample", ("the selection samples drawn again with replacement: how much scores and "
     "precisions depend on them.")),
    ("Own output", "what a layer gives for the inputs it has in FP32: no other layer's error."),
    ("SQNR", "signal to quantization noise ratio, in dB; higher = less error."),
    ("Precision boundary", "a tensor that must be converted between two layers."),
    ("Glue", ("adds, reshapes and the like between layers. Where the scheme rounds them, their "
     "container is a layer of this role; elsewhere they stay in FP32.")),
)  # fmt: skip
