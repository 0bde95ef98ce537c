"""Makes the golden files of this folder with PyTorch, in float64 on the CPU.

    apt-get install python3-torch        (Debian 12: PyTorch 1.13)
    /usr/bin/python3 test/golden/make_golden.py

A plain Llama, one sequence at a time, written only for this purpose: no line of it comes from the engine that it
checks. Inputs (parameters, log-probabilities, advantages) are rounded to float32 before use, so that the engine
reads exactly the numbers that PyTorch computed with. README.md says what each file holds.
"""
import json
import math
import random
import struct
from pathlib import Path

import torch
import torch.nn.functional as F

torch.set_default_dtype(torch.float64)
torch.set_num_threads(1)
HERE = Path(__file__).resolve().parent


# ---------------------------------------------------------------- files

def save_safetensors(name, tensors):
    """Writes named tensors as float32; the header is padded with spaces to a multiple of 8 bytes."""
    header, blobs, offset = {}, [], 0
    for key, tensor in tensors.items():
        values = tensor.detach().reshape(-1).tolist()
        blob = struct.pack(f"<{len(values)}f", *values)
        header[key] = {"dtype": "F32", "shape": list(tensor.shape), "data_offsets": [offset, offset + len(blob)]}
        blobs.append(blob)
        offset += len(blob)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    (HERE / name).write_bytes(struct.pack("<Q", len(text)) + text + b"".join(blobs))


def as_float32(tensor):
    return tensor.to(torch.float32).to(torch.float64)


def prefixed(prefix, tensors):
    return {prefix + name: tensor for name, tensor in tensors.items()}


# ---------------------------------------------------------------- the model

def parameter_shapes(c):
    q, kv = c["numAttentionHeads"] * c["headDim"], c["numKeyValueHeads"] * c["headDim"]
    d, m = c["hiddenSize"], c["intermediateSize"]
    shapes = {"model.embed_tokens.weight": (c["vocabSize"], d)}
    for i in range(c["numHiddenLayers"]):
        at = f"model.layers.{i}."
        shapes[at + "input_layernorm.weight"] = (d,)
        shapes[at + "self_attn.q_proj.weight"] = (q, d)
        shapes[at + "self_attn.k_proj.weight"] = (kv, d)
        shapes[at + "self_attn.v_proj.weight"] = (kv, d)
        if c.get("qkvBias"):
            for name, size in (("q", q), ("k", kv), ("v", kv)):
                shapes[f"{at}self_attn.{name}_proj.bias"] = (size,)
        if c.get("qkNorm"):
            for name in "qk":
                shapes[f"{at}self_attn.{name}_norm.weight"] = (c["headDim"],)
        shapes[at + "self_attn.o_proj.weight"] = (d, q)
        shapes[at + "post_attention_layernorm.weight"] = (d,)
        shapes[at + "mlp.gate_proj.weight"] = (m, d)
        shapes[at + "mlp.up_proj.weight"] = (m, d)
        shapes[at + "mlp.down_proj.weight"] = (d, m)
    shapes["model.norm.weight"] = (d,)
    if not c["tieWordEmbeddings"]:
        shapes["lm_head.weight"] = (c["vocabSize"], d)
    return shapes


def random_parameters(c, rng):
    """Large enough that attention is sharp and the norm weights matter: an error anywhere shows in every gradient."""
    parameters = {}
    for name, shape in parameter_shapes(c).items():
        count = math.prod(shape)
        if name.endswith(".bias"):
            values = [rng.gauss(0, 0.5) for _ in range(count)]
        elif len(shape) == 1:
            values = [1.0 + rng.gauss(0, 0.3) for _ in range(count)]
        else:
            std = 0.7 if "embed" in name else 1.3 / math.sqrt(shape[1])
            values = [rng.gauss(0, std) for _ in range(count)]
        parameters[name] = as_float32(torch.tensor(values).reshape(shape)).requires_grad_()
    return parameters


def rms_norm(x, weight, eps):
    return weight * (x / torch.sqrt((x * x).mean(-1, keepdim=True) + eps))


def frequencies(c):
    """Rotary frequencies [head_dim / 2]; with rope_scaling of type llama3 the slow ones are divided by its factor."""
    dim = c["headDim"]
    frequency = c["ropeTheta"] ** (-torch.arange(0, dim, 2, dtype=torch.float64) / dim)
    scaling = c.get("ropeScaling")
    if scaling is None:
        return frequency
    low, high = scaling["lowFreqFactor"], scaling["highFreqFactor"]
    turns = scaling["originalMaxPositionEmbeddings"] * frequency / (2 * math.pi)
    blend = torch.clamp((turns - low) / (high - low), 0, 1)
    return frequency * blend + frequency / scaling["factor"] * (1 - blend)


def rotate(x, c):
    """x [heads, tokens, head_dim]; element i is paired with element i + head_dim / 2 (Hugging Face's layout)."""
    tokens, dim = x.shape[1], x.shape[2]
    angle = torch.arange(tokens, dtype=torch.float64)[:, None] * frequencies(c)[None, :]
    cos, sin = torch.cos(angle), torch.sin(angle)
    first, second = x[..., : dim // 2], x[..., dim // 2:]
    return torch.cat([first * cos - second * sin, second * cos + first * sin], -1)


def attention(x, p, at, c):
    tokens, dim, heads, kv_heads = x.shape[0], c["headDim"], c["numAttentionHeads"], c["numKeyValueHeads"]

    def project(name, n):
        y = x @ p[f"{at}self_attn.{name}_proj.weight"].T
        if c.get("qkvBias"):
            y = y + p[f"{at}self_attn.{name}_proj.bias"]
        y = y.reshape(tokens, n, dim)
        if c.get("qkNorm") and name in "qk":
            y = rms_norm(y, p[f"{at}self_attn.{name}_norm.weight"], c["rmsNormEps"])
        return y.transpose(0, 1)

    q = rotate(project("q", heads), c)
    k = rotate(project("k", kv_heads), c)
    v = project("v", kv_heads)
    future = torch.ones(tokens, tokens, dtype=torch.bool).triu(1)
    outputs = []
    for head in range(heads):
        shared = head // (heads // kv_heads)
        scores = (q[head] @ k[shared].T / math.sqrt(dim)).masked_fill(future, -math.inf)
        outputs.append(torch.softmax(scores, -1) @ v[shared])
    return torch.cat(outputs, -1) @ p[f"{at}self_attn.o_proj.weight"].T


def trunk(p, c, ids):
    """The hidden states [tokens, hiddenSize] of one sequence after the last norm."""
    x = p["model.embed_tokens.weight"][torch.tensor(ids)]
    for i in range(c["numHiddenLayers"]):
        at = f"model.layers.{i}."
        x = x + attention(rms_norm(x, p[at + "input_layernorm.weight"], c["rmsNormEps"]), p, at, c)
        h = rms_norm(x, p[at + "post_attention_layernorm.weight"], c["rmsNormEps"])
        gate, up = h @ p[at + "mlp.gate_proj.weight"].T, h @ p[at + "mlp.up_proj.weight"].T
        x = x + (gate * torch.sigmoid(gate) * up) @ p[at + "mlp.down_proj.weight"].T
    return rms_norm(x, p["model.norm.weight"], c["rmsNormEps"])


def llama(p, c, ids):
    """Logits [tokens, vocab] of one sequence."""
    head = p["model.embed_tokens.weight"] if c["tieWordEmbeddings"] else p["lm_head.weight"]
    return trunk(p, c, ids) @ head.T


def cross_entropy(p, c, sequences):
    """Mean over all predicted tokens of all sequences; also the logits of every position, packed."""
    logits = [llama(p, c, ids) for ids in sequences]
    predictions = torch.cat([rows[:-1] for rows in logits])
    targets = torch.tensor([token for ids in sequences for token in ids[1:]])
    return F.cross_entropy(predictions, targets), torch.cat(logits)


def gradients(loss, p):
    return dict(zip(p, torch.autograd.grad(loss, list(p.values()))))


# ---------------------------------------------------------------- A and B: logits, loss, gradients

CONFIG_A = dict(
    vocabSize=37, hiddenSize=20, intermediateSize=27, numHiddenLayers=2, numAttentionHeads=4, numKeyValueHeads=2,
    headDim=6, maxPositionEmbeddings=64, rmsNormEps=1e-5, ropeTheta=10000.0, tieWordEmbeddings=False,
    bosTokenId=1, eosTokenIds=[2],
)
CONFIG_B = dict(CONFIG_A, numKeyValueHeads=4, headDim=10, rmsNormEps=1e-6, ropeTheta=500000.0, tieWordEmbeddings=True)
# Wavelengths of the frequencies: 6, 52, 436, 3626, 30188. With 64 positions the first stays, the second is between.
LLAMA3 = dict(CONFIG_A, headDim=10, ropeTheta=40000.0, tieWordEmbeddings=True, ropeScaling=dict(
    factor=8.0, lowFreqFactor=1.0, highFreqFactor=4.0, originalMaxPositionEmbeddings=64))
QWEN2 = dict(CONFIG_A, headDim=6, numAttentionHeads=6, numKeyValueHeads=3, qkvBias=True, rmsNormEps=1e-6)
QWEN3 = dict(CONFIG_A, headDim=14, numKeyValueHeads=1, qkNorm=True, rmsNormEps=1e-6, ropeTheta=1000000.0)
LENGTHS = [1, 2, 7, 19, 33]


def forward_backward(name, c, seed):
    rng = random.Random(seed)
    p = random_parameters(c, rng)
    sequences = [[rng.randrange(c["vocabSize"]) for _ in range(n)] for n in LENGTHS]
    loss, logits = cross_entropy(p, c, sequences)
    save_safetensors(f"{name}.safetensors", {
        **prefixed("parameter:", p), **prefixed("gradient:", gradients(loss, p)), "logits": logits,
    })
    return p, {"config": c, "sequences": sequences, "loss": loss.item()}


# ---------------------------------------------------------------- C: ten AdamW steps

# The norm bound lies between the norms of these ten steps: Adam hardly sees a gradient that is always scaled the same,
# so only a mix of clipped and unclipped steps shows that clipping is right.
ADAMW = dict(learningRate=1e-3, betas=[0.9, 0.95], eps=1e-8, weightDecay=0.1, maxGradNorm=2.2, steps=10)


def adamw(p, options):
    """PyTorch's own optimizer; weight decay on matrices only, as the Hugging Face trainer that TRL builds on."""
    decay = dict(params=[t for t in p.values() if t.dim() > 1], weight_decay=options["weightDecay"])
    rest = dict(params=[t for t in p.values() if t.dim() == 1], weight_decay=0.0)
    return torch.optim.AdamW(
        [decay, rest], lr=options["learningRate"], betas=tuple(options["betas"]), eps=options["eps"])


def copies(p):
    return {name: tensor.detach().clone().requires_grad_() for name, tensor in p.items()}


def ten_steps(start, c, sequences):
    p = copies(start)
    optimizer = adamw(p, ADAMW)
    losses, norms, snapshots = [], [], {}
    for step in range(1, ADAMW["steps"] + 1):
        optimizer.zero_grad()
        loss, _ = cross_entropy(p, c, sequences)
        loss.backward()
        norms.append(torch.nn.utils.clip_grad_norm_(list(p.values()), ADAMW["maxGradNorm"]).item())
        optimizer.step()
        losses.append(loss.item())
        if step in (1, ADAMW["steps"]):
            snapshots.update(prefixed(f"step{step}:", {n: t.detach().clone() for n, t in p.items()}))
    assert min(norms) < ADAMW["maxGradNorm"] < max(norms), "clipping must act in some steps and rest in others"
    save_safetensors("adamw.safetensors", snapshots)
    return {"options": ADAMW, "losses": losses, "gradNorms": norms}


# ---------------------------------------------------------------- D: one GRPO step

GRPO = dict(temperature=0.9, epsilon=0.2, epsilonHigh=0.28, beta=0.04, maxCompletionLength=12)
PROMPT_LENGTHS = [3, 5]
# (length, ends with end-of-sequence); a completion that does not is truncated, whatever its length.
COMPLETIONS = [(1, True), (4, True), (9, True), (12, False), (12, True), (2, True), (7, True), (12, False)]
# Rewards of the same completions.
SCORES = [1.0, 0.1, 0.0, 0.1, 1.0, 0.0, 1.0, 0.1]
ADVANTAGES = [1.1, -0.7, 0.4, -0.8, 0.9, -1.2, 0.0, 0.3]


GRPO_BOUNDS = (0.8, 1.28, 1.5)


def make_rollouts(p, c, seed, bounds=GRPO_BOUNDS):
    rng = random.Random(seed)
    eos = c["eosTokenIds"][0]
    ordinary = [token for token in range(c["vocabSize"]) if token != eos]
    prompts = [[rng.choice(ordinary) for _ in range(n)] for n in PROMPT_LENGTHS]
    rollouts = []
    for i, (length, finished) in enumerate(COMPLETIONS):
        tokens = [rng.choice(ordinary) for _ in range(length)]
        if finished:
            tokens[-1] = eos
        rollouts.append({"prompt": prompts[i * len(prompts) // len(COMPLETIONS)], "completion": tokens,
                         "truncated": not finished})
    with torch.no_grad():
        scored = score_rollouts(p, c, rollouts)
    for rollout, (logps, _), advantage in zip(rollouts, scored, ADVANTAGES):
        rollout["advantage"] = as_float32(torch.tensor(advantage))
        rollout["oldLogps"] = as_float32(torch.stack([logp - clear_log_ratio(rng, bounds) for logp in logps]))
        rollout["refLogps"] = as_float32(torch.stack([logp + rng.gauss(0, 0.3) for logp in logps]))
    return rollouts


def clear_log_ratio(rng, bounds):
    """A log-ratio between -0.6 and 0.6 that is not so near a clipping bound that float32 could fall on the other side."""
    while True:
        value = rng.uniform(-0.6, 0.6)
        if all(abs(math.exp(value) - bound) > 0.01 for bound in bounds):
            return value


def score_rollouts(p, c, rollouts):
    """(log-probabilities, entropies) of each completion's tokens at the sampling temperature."""
    scored = []
    for rollout in rollouts:
        ids = rollout["prompt"] + rollout["completion"]
        first = len(rollout["prompt"]) - 1
        logps = F.log_softmax(llama(p, c, ids)[first:-1] / GRPO["temperature"], -1)
        chosen = logps[torch.arange(len(rollout["completion"])), torch.tensor(rollout["completion"])]
        scored.append((chosen, -(logps.exp() * logps).sum(-1)))
    return scored


def clear_of(ratios, bounds):
    """No ratio is so near a bound that float32 could fall on the other side."""
    return all(abs(ratio - bound) > 1e-3 for ratio in ratios.tolist() for bound in bounds)


def grpo_loss(scored, rollouts, loss_type, beta, delta, mask_truncated, accumulation, items_in_batch, level, epsilon,
              epsilon_high, entropy_coef):
    """The formulas of TRL's GRPOTrainer._compute_loss for one micro-batch, over lists instead of padded tensors."""
    cispo = loss_type == "cispo"
    low, high = (0.0, epsilon_high) if cispo else (1 - epsilon, 1 + epsilon_high)
    losses, kls, entropies, lows, highs, counts, ratios = [], [], [], [], [], [], []
    for (logps, entropy), rollout in zip(scored, rollouts):
        keep = 0.0 if mask_truncated and rollout["truncated"] else 1.0
        advantage = rollout["advantage"]
        log_ratio = logps - rollout["oldLogps"]
        ratio = torch.exp(log_ratio.mean().reshape(1) if level == "sequence" else log_ratio)
        assert clear_of(ratio, [low, high, delta or high])
        if cispo:
            token_loss = -torch.clamp(ratio, max=high).detach() * advantage * logps
        else:
            clipped = torch.clamp(ratio, low, high)
            if delta is not None:
                ratio = torch.clamp(ratio, max=delta)
            token_loss = -torch.min(ratio * advantage, clipped * advantage)
        log_ref_ratio = rollout["refLogps"] - logps
        kl = torch.exp(log_ref_ratio) - log_ref_ratio - 1
        losses.append(((token_loss + beta * kl) * keep).sum())
        counts.append(keep * len(logps))
        ratios.append(keep * len(ratio))
        kls.append((kl * keep).sum().item())
        entropies.append((entropy * keep).sum().item())
        lows.append(keep * ((ratio < low) & (advantage < 0)).sum().item())
        highs.append(keep * ((ratio > high) & (advantage > 0)).sum().item())
    total = max(sum(counts), 1.0)
    if loss_type == "grpo":
        loss = sum(part / max(count, 1.0) for part, count in zip(losses, counts)) / len(losses) / accumulation
    elif loss_type == "bnpo":
        loss = sum(losses) / total / accumulation
    elif loss_type == "dr_grpo":
        loss = sum(losses) / (len(losses) * GRPO["maxCompletionLength"]) / accumulation
    elif loss_type in ("dapo", "cispo"):
        loss = sum(losses) / max(items_in_batch, 1.0)
    else:
        raise ValueError(loss_type)
    if entropy_coef != 0:
        # Of each micro-batch its share in the mean over the optimizer step.
        mean_entropy = sum((e * (0.0 if mask_truncated and r["truncated"] else 1.0)).sum()
                           for (_, e), r in zip(scored, rollouts))
        mean_entropy = mean_entropy / (items_in_batch if loss_type in ("dapo", "cispo") else total * accumulation)
        loss = loss - entropy_coef * mean_entropy
    # One ratio a completion: the share of completions. TRL counts masked ones there too, as not clipped.
    n = max(sum(ratios), 1.0)
    metrics = {"kl": sum(kls) / total, "entropy": sum(entropies) / total, "clip_ratio/low_mean": sum(lows) / n,
               "clip_ratio/high_mean": sum(highs) / n, "clip_ratio/region_mean": (sum(lows) + sum(highs)) / n}
    return loss, metrics


def grpo_case(name, p, c, rollouts, tensors, *, loss_type, beta=GRPO["beta"], delta=None, mask_truncated=False,
              micro_batches=1, step=False, level="token", epsilon=GRPO["epsilon"], epsilon_high=GRPO["epsilonHigh"],
              entropy_coef=0.0):
    items = sum(len(r["completion"]) for r in rollouts if not (mask_truncated and r["truncated"]))
    size = len(rollouts) // micro_batches
    losses, metrics, total = [], [], 0
    for at in range(0, len(rollouts), size):
        part = rollouts[at:at + size]
        loss, measured = grpo_loss(score_rollouts(p, c, part), part, loss_type, beta, delta, mask_truncated,
                                   micro_batches, items, level, epsilon, epsilon_high, entropy_coef)
        total = total + loss
        losses.append(loss.item())
        metrics.append(measured)
    grads = gradients(total, p)
    tensors.update(prefixed(f"{name}:gradient:", grads))
    case = {"name": name, "lossType": loss_type, "importanceSamplingLevel": level, "epsilon": epsilon,
            "epsilonHigh": epsilon_high, "beta": beta, "delta": delta, "entropyCoef": entropy_coef,
            "maskTruncatedCompletions": mask_truncated,
            "gradientAccumulationSteps": micro_batches, "numItemsInBatch": items, "loss": total.item(),
            "microBatchLosses": losses, "microBatchMetrics": metrics, "metrics": metrics[0] if micro_batches == 1 else None,
            "gradNorm": math.sqrt(sum((g * g).sum().item() for g in grads.values())), "hasStep": step, "rewarded": None}
    if step:
        after = copies(p)
        optimizer = adamw(after, ADAMW)
        for n, tensor in after.items():
            tensor.grad = grads[n].clone()
        torch.nn.utils.clip_grad_norm_(list(after.values()), ADAMW["maxGradNorm"])
        optimizer.step()
        tensors.update(prefixed(f"{name}:after:", after))
    return case


OVERLONG = dict(maxTokens=12, buffer=6)


def soft_overlong(length):
    """DAPO eq. 13."""
    safe = OVERLONG["maxTokens"] - OVERLONG["buffer"]
    if length <= safe:
        return 0.0
    return (safe - length) / OVERLONG["buffer"] if length <= OVERLONG["maxTokens"] else -1.0


def rewarded_case(name, p, c, rollouts, tensors, *, overlong, estimator, scale, **options):
    """From scores to gradients: what RLOO and the soft overlong punishment make of rewards."""
    rows = [[score, soft_overlong(len(r["completion"])) if overlong else 0.0] for score, r in zip(SCORES, rollouts)]
    advantages = advantage_case(4, [1.0, 1.0], rows, scale, estimator)["advantages"]
    own = [{**r, "advantage": as_float32(torch.tensor(a))} for r, a in zip(rollouts, advantages)]
    tensors[f"{name}:advantages"] = torch.stack([r["advantage"] for r in own])
    rewarded = {"scores": SCORES, "overlong": OVERLONG if overlong else None, "numGenerations": 4,
                "scaleRewards": scale, "advantageEstimator": estimator}
    return {**grpo_case(name, p, c, own, tensors, **options), "rewarded": rewarded}


def grpo_cases(p, c, seed):
    rollouts = make_rollouts(p, c, seed)
    scored = score_rollouts(p, c, rollouts)
    tensors = {
        "logps": torch.cat([logps for logps, _ in scored]), "entropies": torch.cat([e for _, e in scored]),
        "oldLogps": torch.cat([r["oldLogps"] for r in rollouts]),
        "refLogps": torch.cat([r["refLogps"] for r in rollouts]),
        "advantages": torch.stack([r["advantage"] for r in rollouts]),
    }
    types = ["grpo", "bnpo", "dr_grpo", "dapo"]

    def case(name, **options):
        return grpo_case(name, p, c, rollouts, tensors, **options)

    cases = [case(t, loss_type=t, step=True) for t in types]
    cases += [case(f"{t}/masked", loss_type=t, mask_truncated=True) for t in types]
    cases += [case("grpo/delta", loss_type="grpo", delta=1.5), case("dapo/beta0", loss_type="dapo", beta=0.0)]
    # Equal micro-batches give grpo, dr_grpo and dapo the gradient of the whole batch; bnpo weights them anew.
    cases += [case(f"{t}/accumulated", loss_type=t, micro_batches=2) for t in ["bnpo", "dapo"]]
    sequence = dict(level="sequence", epsilon=0.004, epsilon_high=0.04)
    cases += [case("gspo", loss_type="grpo", **sequence), case("gspo/masked", loss_type="grpo", mask_truncated=True, **sequence),
              case("gspo/beta0", loss_type="grpo", beta=0.0, **sequence),
              case("gspo/dapo", loss_type="dapo", **sequence),
              case("gspo/delta", loss_type="grpo", delta=1.06, **sequence)]
    # An upper limit of 1.5 on ratios up to e^0.6 = 1.82.
    cases += [case("cispo", loss_type="cispo", epsilon_high=1.5), case("cispo/masked", loss_type="cispo", epsilon_high=1.5,
                                                                       mask_truncated=True),
              case("cispo/sequence", loss_type="cispo", level="sequence", epsilon_high=1.04)]
    cases += [case("dapo/entropy", loss_type="dapo", entropy_coef=0.1),
              case("grpo/entropy", loss_type="grpo", entropy_coef=0.1, mask_truncated=True),
              case("cispo/entropy", loss_type="cispo", epsilon_high=1.5, entropy_coef=0.1)]
    cases += [rewarded_case("rloo", p, c, rollouts, tensors, overlong=False, estimator="rloo", scale="none", loss_type="dr_grpo"),
              rewarded_case("dapo/overlong", p, c, rollouts, tensors, overlong=True, estimator="grpo", scale="group",
                            loss_type="dapo", beta=0.0)]
    by_name = {k["name"]: k for k in cases}
    for name in ("gspo", "gspo/masked", "gspo/dapo"):
        assert min(by_name[name]["metrics"][f"clip_ratio/{side}_mean"] for side in ("low", "high")) > 0, name
    assert by_name["gspo"]["loss"] != by_name["gspo/delta"]["loss"], "delta must matter"
    for name in ("cispo", "cispo/sequence"):
        assert by_name[name]["metrics"]["clip_ratio/high_mean"] > 0, name
    assert cases[0]["metrics"]["clip_ratio/low_mean"] > 0 and cases[0]["metrics"]["clip_ratio/high_mean"] > 0
    assert cases[0]["loss"] != next(k for k in cases if k["name"] == "grpo/delta")["loss"], "delta must matter"
    save_safetensors("grpo.safetensors", tensors)
    given = [{k: r[k] for k in ("prompt", "completion", "truncated")} for r in rollouts]
    return {"options": GRPO, "optimizer": ADAMW, "rollouts": given, "cases": cases}


# ---------------------------------------------------------------- E: advantages

NAN = math.nan
REWARDS = {
    # name: (number of generations, reward weights, rows of [accuracy, format]); NaN: the reward gave no number.
    "plain": (4, [1.0, 0.5], [
        [1.0, 0.1], [0.0, 0.1], [0.0, 0.0], [1.0, 1.0],
        [0.1, 0.1], [0.1, 0.1], [0.1, 0.1], [0.1, 0.1],
        [-2.5, 1.0], [3.25, 0.0], [0.5, 1.0], [0.125, 0.0]]),
    "unscored": (3, [1.0, 2.0], [
        [1.0, NAN], [0.0, 0.5], [NAN, NAN],
        [NAN, NAN], [NAN, NAN], [1.0, 0.5],
        [NAN, NAN], [NAN, NAN], [NAN, NAN],
        [0.0, 0.25], [NAN, 0.25], [1.0, 1.0]]),
    "equal": (2, [1.0, 1.0], [[0.3, 0.1], [0.3, 0.1], [0.3, 0.1], [0.3, 0.1]]),
}


def nan_std(x, dim=None):
    """TRL's nanstd: Bessel's correction over the numbers that are there; NaN where fewer than two are."""
    mean = torch.nanmean(x) if dim is None else torch.nanmean(x, dim, keepdim=True)
    squares = (x - mean) ** 2
    variance = torch.nanmean(squares) if dim is None else torch.nanmean(squares, dim)
    count = (~torch.isnan(x)).sum() if dim is None else (~torch.isnan(x)).sum(dim)
    correction = torch.where(count > 1, count / (count - 1), torch.tensor(NAN))
    return torch.sqrt(variance * correction)


def leave_one_out(groups):
    """As in TRL's RLOOTrainer: the mean of the other rewards that are there."""
    there = (~torch.isnan(groups)).sum(1, keepdim=True)
    baselines = (torch.nansum(groups, 1, keepdim=True) - groups) / (there - 1)
    return (groups - baselines).reshape(-1)


def advantage_case(generations, weights, rows, scale, estimator="grpo"):
    table = torch.tensor(rows)
    rewards = torch.nansum(table * torch.tensor(weights), 1)
    rewards[torch.isnan(table).all(1)] = NAN
    groups = rewards.reshape(-1, generations)
    mean = torch.nanmean(groups, 1).repeat_interleave(generations)
    if scale == "batch":
        std = nan_std(rewards).expand_as(rewards)
    else:
        std = nan_std(groups, 1).repeat_interleave(generations)
    advantages = rewards - mean
    if scale != "none":
        advantages = advantages / (std + 1e-4)
    if estimator == "rloo":
        advantages = leave_one_out(groups)
    per_function = [{"mean": torch.nanmean(table[:, k]).item(), "std": nan_std(table[:, k]).item()}
                    for k in range(table.shape[1])]
    zero = torch.isclose(std, torch.zeros_like(std))
    return {"scaleRewards": scale, "advantageEstimator": estimator, "advantages": torch.nan_to_num(advantages, nan=0.0).tolist(),
            "sums": null_for_nan(rewards.tolist()), "reward": torch.nanmean(rewards).item(),
            "reward_std": nan_std(rewards).item(), "frac_reward_zero_std": zero.double().mean().item(),
            "rewards": per_function}


def null_for_nan(values):
    return [None if math.isnan(v) else v for v in values]


def advantage_cases():
    return [{"name": name, "numGenerations": generations, "weights": weights,
             "rewards": [null_for_nan(row) for row in rows],
             "scaled": [advantage_case(generations, weights, rows, s) for s in ("group", "batch", "none")]
             + [advantage_case(generations, weights, rows, "none", "rloo")]}
            for name, (generations, weights, rows) in REWARDS.items()]


# ---------------------------------------------------------------- F: generalized advantage estimation

def gae_case(tokens, gamma, lam, seed):
    """Advantages as the solution of A - gamma lam (A of the next token) = delta, returns as A + V."""
    rng = random.Random(seed)
    rewards = torch.tensor([rng.gauss(0, 0.1) for _ in range(tokens)])
    rewards[-1] += 1
    values = torch.tensor([rng.gauss(0.5, 0.3) for _ in range(tokens)])
    following = torch.diag(torch.ones(tokens - 1), 1)
    delta = rewards + gamma * (following @ values) - values
    advantages = torch.linalg.solve(torch.eye(tokens) - gamma * lam * following, delta)
    return {"gamma": gamma, "lam": lam, "rewards": rewards.tolist(), "values": values.tolist(),
            "advantages": advantages.tolist(), "returns": (advantages + values).tolist()}


def gae_cases():
    return [gae_case(1, 1.0, 0.95, 1), gae_case(9, 1.0, 0.95, 2), gae_case(40, 0.9, 0.8, 3), gae_case(7, 1.0, 1.0, 4),
            gae_case(7, 0.99, 0.0, 5)]


# ---------------------------------------------------------------- G: PPO

PPO = dict(temperature=0.9, cliprange=0.2, cliprangeValue=0.2, vfCoef=0.1, maxCompletionLength=12, updates=3)
# The bound of the gradient norm lies between those of the policy's and of the critic's losses: one is clipped, one is not.
PPO_ADAMW = dict(learningRate=1e-3, betas=[0.9, 0.99], eps=1e-8, weightDecay=0.1, maxGradNorm=1.0)


def padded(lists, fill=0.0):
    longest = max(len(x) for x in lists)
    return torch.stack([F.pad(x, (0, longest - len(x)), value=fill) for x in lists])


def critic_values(critic, c, rollouts):
    """Of the state before each token of each completion."""
    values = []
    for rollout in rollouts:
        ids, first = rollout["prompt"] + rollout["completion"], len(rollout["prompt"]) - 1
        values.append((trunk(critic, c, ids)[first:-1] @ critic["score.weight"].T).squeeze(-1))
    return values


def masked_mean(x, mask):
    return (x * mask).sum() / mask.sum()


def masked_whiten(x, mask, shift_mean):
    mean = masked_mean(x, mask)
    n = mask.sum()
    variance = masked_mean((x - mean) ** 2, mask) * n / (n - 1)
    y = (x - mean) * torch.rsqrt(variance + 1e-8)
    return y if shift_mean else y + mean


def ppo_advantages(rollouts, values, *, kl_coef, kl_estimator, whiten_rewards, whiten_advantages, penalty, gamma, lam):
    """As TRL's PPOTrainer over padded tensors, but for the score: the last token earns it, and nothing follows."""
    lengths = torch.tensor([len(r["completion"]) for r in rollouts])
    logps, refs = padded([r["oldLogps"] for r in rollouts]), padded([r["refLogps"] for r in rollouts])
    values = padded(values)
    mask = (torch.arange(logps.shape[1])[None, :] < lengths[:, None]).double()
    scores = torch.tensor([s - (penalty if r["truncated"] else 0.0) for s, r in zip(SCORES, rollouts)])
    log_ratio = refs - logps
    kl = -log_ratio if kl_estimator == "k1" else (log_ratio.exp() - 1) - log_ratio
    rewards = -kl_coef * kl * mask
    rewards[torch.arange(len(rollouts)), lengths - 1] += scores
    if whiten_rewards:
        rewards = masked_whiten(rewards, mask, False) * mask
    steps, following = [], torch.zeros(len(rollouts))
    for t in reversed(range(logps.shape[1])):
        next_value = values[:, t + 1] if t + 1 < logps.shape[1] else torch.zeros(len(rollouts))
        delta = rewards[:, t] + gamma * next_value - values[:, t]
        following = delta + gamma * lam * following
        steps.append(following)
    advantages = torch.stack(steps[::-1], 1) * mask
    returns = (advantages + values) * mask
    if whiten_advantages:
        advantages = masked_whiten(advantages, mask, True) * mask
    return kl * mask, rewards, advantages, returns, mask


def ppo_loss(policy, critic, c, rollouts, old_values, advantages, returns, mask, entropy_coef):
    scored = score_rollouts(policy, c, rollouts)
    logps, entropies = padded([x for x, _ in scored]), padded([x for _, x in scored])
    old_logps, old_values = padded([r["oldLogps"] for r in rollouts]), padded(old_values)
    values = padded(critic_values(critic, c, rollouts))
    clip, clip_value = PPO["cliprange"], PPO["cliprangeValue"]
    clipped_values = torch.clamp(values, old_values - clip_value, old_values + clip_value)
    value_losses, clipped_value_losses = (values - returns) ** 2, (clipped_values - returns) ** 2
    value_loss = 0.5 * masked_mean(torch.max(value_losses, clipped_value_losses), mask)
    difference = logps - old_logps
    ratio = torch.exp(difference)
    policy_losses = -advantages * ratio
    clipped_policy_losses = -advantages * torch.clamp(ratio, 1 - clip, 1 + clip)
    policy_loss = masked_mean(torch.max(policy_losses, clipped_policy_losses), mask)
    counted = mask.bool()
    assert clear_of(ratio[counted], [1 - clip, 1 + clip])
    assert clear_of((values - old_values).abs()[counted], [clip_value])
    apart = (value_losses - clipped_value_losses).abs()[counted & (values != clipped_values)]
    assert apart.min() > 1e-4, "no value so near the middle that float32 could take the other loss"
    entropy = masked_mean(entropies, mask)
    metrics = {"loss/policy_avg": policy_loss, "loss/value_avg": value_loss,
               "policy/approxkl_avg": 0.5 * masked_mean(difference ** 2, mask),
               "policy/clipfrac_avg": masked_mean((clipped_policy_losses > policy_losses).double(), mask),
               "val/clipfrac_avg": masked_mean((clipped_value_losses > value_losses).double(), mask),
               "policy/entropy_avg": entropy, "val/ratio": masked_mean(ratio, mask)}
    loss = policy_loss - entropy_coef * entropy + PPO["vfCoef"] * value_loss
    return loss, {name: value.item() for name, value in metrics.items()}


def unpadded(x, rollouts):
    return torch.cat([row[: len(r["completion"])] for row, r in zip(x, rollouts)])


def ppo_case(name, policy, critic, c, rollouts, old_values, tensors, *, kl_coef=0.05, kl_estimator="k1", whiten_rewards=False,
             whiten_advantages=True, penalty=0.0, gamma=1.0, lam=0.95, entropy_coef=0.0, shared=False, updates=1):
    options = dict(kl_coef=kl_coef, kl_estimator=kl_estimator, whiten_rewards=whiten_rewards,
                   whiten_advantages=whiten_advantages, penalty=penalty, gamma=gamma, lam=lam)
    kl, rewards, advantages, returns, mask = ppo_advantages(rollouts, old_values, **options)
    for key, x in (("rewards", rewards), ("advantages", advantages), ("returns", returns)):
        tensors[f"{name}:{key}"] = unpadded(x, rollouts)
    advantages, returns = as_float32(advantages), as_float32(returns)
    policy = copies(policy)
    if shared:
        head = {"score.weight": critic["score.weight"].detach().clone().requires_grad_()}
        critic, own = {**policy, **head}, head
    else:
        critic = own = copies(critic)
    optimizers = [adamw(policy, PPO_ADAMW), adamw(own, PPO_ADAMW)]
    measured, norms = [], []
    for update in range(1, updates + 1):
        for optimizer in optimizers:
            optimizer.zero_grad()
        loss, metrics = ppo_loss(policy, critic, c, rollouts, old_values, advantages, returns, mask, entropy_coef)
        loss.backward()
        if update == 1:
            tensors.update(prefixed(f"{name}:gradient:policy:", {n: t.grad.clone() for n, t in policy.items()}))
            tensors.update(prefixed(f"{name}:gradient:critic:", {n: t.grad.clone() for n, t in own.items()}))
        norms.append([torch.nn.utils.clip_grad_norm_(list(part.values()), PPO_ADAMW["maxGradNorm"]).item()
                      for part in (policy, own)])
        for optimizer in optimizers:
            optimizer.step()
        measured.append({**metrics, "loss": loss.item()})
    if updates > 1:
        tensors.update(prefixed(f"{name}:after:policy:", {n: t.detach().clone() for n, t in policy.items()}))
        tensors.update(prefixed(f"{name}:after:critic:", {n: t.detach().clone() for n, t in own.items()}))
    return {"name": name, "klCoef": kl_coef, "klEstimator": kl_estimator, "whitenRewards": whiten_rewards,
            "whitenAdvantages": whiten_advantages, "missingEosPenalty": penalty, "gamma": gamma, "lam": lam,
            "entropyCoef": entropy_coef, "sharedTrunk": shared, "updates": updates, "metrics": measured, "gradNorms": norms,
            "kl": (kl.sum(1)).mean().item()}


def ppo_cases(p, c, seed):
    rollouts = make_rollouts(p, c, seed, (0.8, 1.2))
    rng = random.Random(seed + 1)
    critic_config = dict(c, tieWordEmbeddings=True)
    critic = random_parameters(critic_config, rng)
    critic["score.weight"] = as_float32(torch.tensor([[rng.gauss(0, 0.2) for _ in range(c["hiddenSize"])]])).requires_grad_()

    def perturbed(values):
        away = []
        for value in values:
            shift = rng.uniform(-0.5, 0.5)
            while abs(abs(shift) - PPO["cliprangeValue"]) < 0.03:
                shift = rng.uniform(-0.5, 0.5)
            away.append(value.item() + shift)
        return as_float32(torch.tensor(away))

    with torch.no_grad():
        values = critic_values(critic, c, rollouts)
        shared_values = critic_values({**p, "score.weight": critic["score.weight"]}, c, rollouts)
    old_values = [perturbed(v) for v in values]
    old_shared = [perturbed(v) for v in shared_values]
    tensors = {
        **prefixed("critic:", critic), "values": torch.cat(values), "sharedValues": torch.cat(shared_values),
        "oldValues": torch.cat(old_values), "oldSharedValues": torch.cat(old_shared),
        "oldLogps": torch.cat([r["oldLogps"] for r in rollouts]), "refLogps": torch.cat([r["refLogps"] for r in rollouts]),
    }

    def case(name, **options):
        old = old_shared if options.get("shared") else old_values
        return ppo_case(name, p, critic, c, rollouts, old, tensors, **options)

    cases = [
        case("k1", updates=PPO["updates"]),
        case("k3", kl_estimator="k3", kl_coef=0.2, penalty=0.5, whiten_rewards=True, gamma=0.98, lam=0.8),
        case("plain", kl_coef=0.0, whiten_advantages=False, lam=1.0, entropy_coef=0.1),
        case("shared", shared=True, updates=PPO["updates"]),
    ]
    for name in ("policy/clipfrac_avg", "val/clipfrac_avg"):
        assert all(0 < k["metrics"][0][name] < 1 for k in cases), name
    save_safetensors("ppo.safetensors", tensors)
    given = [{k: r[k] for k in ("prompt", "completion", "truncated")} for r in rollouts]
    return {"options": PPO, "optimizer": PPO_ADAMW, "criticConfig": critic_config, "rollouts": given, "scores": SCORES,
            "cases": cases}


# ---------------------------------------------------------------- all of it

# ---------------------------------------------------------------- distillation

# The teacher of `a`: other sizes, the same vocabulary.
TEACHER = dict(CONFIG_A, hiddenSize=12, intermediateSize=18, numHiddenLayers=1, numAttentionHeads=2)


def generalized_jsd(student, teacher, beta, temperature, top):
    """After `generalized_jsd_loss` of TRL's gkd_trainer.py, with reduction `batchmean`: logits [tokens, vocab]. With `top`
    the teacher's likeliest tokens are outcomes of their own and all others one."""
    s, t = F.log_softmax(student / temperature, -1), F.log_softmax(teacher / temperature, -1)
    if top:
        kept = t.topk(top, -1).indices
        mask = torch.zeros_like(t, dtype=torch.bool).scatter(-1, kept, True)
        def outcomes(logp):
            rest = logp.masked_fill(mask, -math.inf).logsumexp(-1, keepdim=True)
            return torch.cat([logp.gather(-1, kept), rest], -1)
        s, t = outcomes(s), outcomes(t)
    if beta == 0:
        loss = F.kl_div(s, t, reduction="none", log_target=True)
    elif beta == 1:
        loss = F.kl_div(t, s, reduction="none", log_target=True)
    else:
        mixture = torch.logsumexp(torch.stack([s + math.log1p(-beta), t + math.log(beta)]), dim=0)
        loss = beta * F.kl_div(mixture, t, reduction="none", log_target=True) \
            + (1 - beta) * F.kl_div(mixture, s, reduction="none", log_target=True)
    return loss.sum() / len(student)


def distill_cases(p, c, seed):
    rng = random.Random(seed)
    teacher = random_parameters(TEACHER, rng)
    sequences = [{"prompt": [rng.randrange(c["vocabSize"]) for _ in range(m)],
                  "completion": [rng.randrange(c["vocabSize"]) for _ in range(n)]}
                 for m, n in ((3, 5), (1, 1), (6, 20))]

    def rows(parameters, config):
        """The logits that predict each completion's tokens, one completion after another."""
        return torch.cat([llama(parameters, config, s["prompt"] + s["completion"][:-1])[len(s["prompt"]) - 1:]
                          for s in sequences])

    tensors = prefixed("teacher:", teacher)
    cases = []
    with torch.no_grad():
        given = rows(teacher, TEACHER)
    for beta, temperature, top in ((0, 1, None), (1, 1, None), (0.5, 1, None), (0.1, 0.9, None), (0, 2, None), (1, 0.7, None),
                                   (0, 1, 4), (0.5, 0.9, 4), (1, 1, 4)):
        name = f"beta{beta}/temperature{temperature}" + (f"/top{top}" if top else "")
        loss = generalized_jsd(rows(p, c), given, beta, temperature, top)
        tensors.update(prefixed(f"{name}:gradient:", gradients(loss, p)))
        cases.append({"name": name, "beta": beta, "temperature": temperature, "top": top, "loss": loss.item()})
    save_safetensors("distill.safetensors", tensors)
    return {"teacherConfig": TEACHER, "sequences": sequences, "cases": cases}


def main():
    p, a = forward_backward("a", CONFIG_A, 1)
    _, b = forward_backward("b", CONFIG_B, 2)
    families = {name: forward_backward(name, c, seed)[1]
                for name, c, seed in (("llama3", LLAMA3, 4), ("qwen2", QWEN2, 5), ("qwen3", QWEN3, 6))}
    index = {
        "madeBy": f"test/golden/make_golden.py, PyTorch {torch.__version__}, float64",
        "a": a, "b": b, **families,
        "adamw": ten_steps(p, CONFIG_A, a["sequences"]),
        "grpo": grpo_cases(p, CONFIG_A, 3),
        "advantages": advantage_cases(),
        "gae": gae_cases(),
        "ppo": ppo_cases(p, CONFIG_A, 22),
        "distill": distill_cases(p, CONFIG_A, 31),
    }
    (HERE / "golden.json").write_text(json.dumps(index, indent=1, allow_nan=False) + "\n")
    print(json.dumps({"a": a["loss"], "b": b["loss"], **index["adamw"],
                      "grpo": {k["name"]: [k["loss"], k["gradNorm"]] for k in index["grpo"]["cases"]},
                      "metrics": index["grpo"]["cases"][0]["metrics"]}, indent=1))


if __name__ == "__main__":
    main()
