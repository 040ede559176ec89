"""Decoding of E2E inputs: our beam search against `generate` in batches of 16."""

from __future__ import annotations

from typing import Any

import torch
import transformers

from bench.harness import DEVICE, Options, Result, Target, number, quartiles, ratios, spread
from bench.ours import now
from rosa_bench.config.compose import compose
from rosa_bench.data.source import load_split
from rosa_bench.evaluation import predict
from rosa_bench.models.load import load

BATCH = 16  # of `generate`
FASTER = 3  # required speedup


def measure(options: Options) -> Result:
    """Decode 128 inputs with ten beams and a random GPT-2 medium; with --quick, 4 inputs with the embedded decoder."""
    run = compose(["task=e2e", "method=full", "tracker=none", "task.num_beams=10", "task.no_repeat_ngram=4"])
    model, tokenizer = load(run.model, run.task, 0)
    if not options.quick:
        torch.manual_seed(0)
        config = transformers.GPT2Config(
            n_embd=1024, n_layer=24, n_head=16, vocab_size=len(tokenizer), bos_token_id=tokenizer.eos_token_id,
            eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
        )  # fmt: skip
        model = transformers.GPT2LMHeadModel(config)
    model.to(DEVICE)
    examples = load_split(run.task, run.data, "test", 4 if options.quick else 128).examples
    times: dict[str, list[float]] = {"ours": [], "generate": []}
    result = Result()
    for _ in range(1 if options.quick else 2):
        began = now()
        our_texts = _ours(run.task, model, tokenizer, examples, options.eval_batch)
        middle = now()
        their_texts = _generate(run.task, model, tokenizer, examples)
        times["ours"].append(middle - began)
        times["generate"].append(now() - middle)
    differing = sum(a != b for a, b in zip(our_texts, their_texts, strict=True))
    over = ratios(times, "generate", "ours")
    head = ("decoding", "inputs", "ours s", "generate s", "ratio", "different texts")
    seconds = [number(quartiles(values)[1]) for values in times.values()]
    result.tables.append([head, ("10 beams", str(len(examples)), *seconds, spread(over), str(differing))])
    result.numbers |= {"seconds": times, "others": differing, "inputs": len(examples), "layers": model.config.n_layer}
    result.targets.append(Target("time of generate over ours, 10 beams", quartiles(over)[1], FASTER))
    result.notes.append("Random weights, so texts have full length, and left padding may change a near tie.")
    return result


def _ours(task: Any, model: Any, tokenizer: Any, examples: Any, eval_batch: int) -> list[str]:
    batch = predict.decoding_batch(task, model, eval_batch)
    decoded = predict.decode(task, model, tokenizer, examples, batch, model.config.n_positions)
    return [str(prediction.value) for prediction in decoded]


def _generate(task: Any, model: Any, tokenizer: Any, examples: Any) -> list[str]:
    """Texts of `generate`, in batches of similar length with left padding."""
    prompts = [task.prompt_ids(example, tokenizer) for example in examples]
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    texts = [""] * len(prompts)
    for start in range(0, len(order), BATCH):
        part = order[start : start + BATCH]
        longest = max(len(prompts[i]) for i in part)
        pad = [[tokenizer.pad_token_id] * (longest - len(prompts[i])) for i in part]
        ids = torch.tensor([p + list(prompts[i]) for p, i in zip(pad, part, strict=True)], device=DEVICE)
        mask = torch.tensor([[0] * len(p) + [1] * (longest - len(p)) for p in pad], device=DEVICE)
        with predict.evaluating(model):
            out = model.generate(
                ids, attention_mask=mask, num_beams=task.num_beams, max_new_tokens=task.max_new_tokens,
                no_repeat_ngram_size=task.no_repeat_ngram, length_penalty=task.length_penalty, do_sample=False,
                pad_token_id=tokenizer.pad_token_id, eos_token_id=tokenizer.eos_token_id,
            )  # fmt: skip
        for i, row in zip(part, out[:, longest:], strict=True):
            texts[i] = tokenizer.decode(row, skip_special_tokens=True).strip()
    return texts
