"""Decoding of E2E inputs: batches with our search against one input at a time with `generate`."""

from __future__ import annotations

import time
from functools import partial
from statistics import median
from typing import Any

from bench.harness import DEVICE, Options, Result, Target, number, quartiles, spread
from rosa_bench.config.compose import compose
from rosa_bench.data.source import load_split
from rosa_bench.evaluation import beam_search, predict
from rosa_bench.models.load import load


def measure(options: Options) -> Result:
    """Decode a share of the inputs both ways in each round and compare the outputs."""
    result = Result(numbers={"rows": options.rows})
    head = ("decoding", "inputs", "tokens/s in batches", "one by one", "ratio (quartiles)", "different outputs")
    result.tables.append([head])
    for beams in options.beams:
        rates, inputs, differing = _rates(options, beams)
        times = [batched / single for batched, single in rates]
        batched, single = (median(values) for values in zip(*rates, strict=True))
        name = "greedy" if beams == 1 else f"{beams} beams"
        result.tables[0].append((name, str(inputs), number(batched), number(single), spread(times), str(differing)))
        numbers = {"tokens_per_s": rates, "ratios": times, "inputs": inputs, "others": differing}
        result.numbers[f"beams {beams}"] = numbers
        result.targets += [
            Target(f"{name}: tokens/s in batches over one by one", quartiles(times)[1], 8),
            Target(f"{name}: outputs that differ", differing, 0, at_least=False),
        ]
    return result


def _rates(options: Options, beams: int) -> tuple[list[tuple[float, float]], int, int]:
    """Tokens per second of both ways in each round, number of inputs, number of outputs that differ."""
    source = ["data=local", f"data.dir={options.data}"] if options.data else []
    overrides = [f"task.num_beams={beams}", f"task.no_repeat_ngram={4 * (beams > 1)}"]
    run = compose([f"task={options.task}", f"method={options.method}", "tracker=none", *overrides, *source])
    model, tokenizer = load(run.model, run.task, 0)
    run.method.attach(model, 0)
    model.to(DEVICE)
    examples = load_split(run.task, run.data, "test", options.inputs).examples
    decode_both = partial(_both_ways, run.task, model, tokenizer, options.eval_batch)
    outcomes = [decode_both(examples[i :: options.rounds]) for i in range(options.rounds)]
    return [rates for rates, _ in outcomes], len(examples), sum(differing for _, differing in outcomes)


def _both_ways(task: Any, model: Any, tokenizer: Any, eval_batch: int, share: Any) -> tuple[tuple[float, float], int]:
    batch = predict.decoding_batch(task, model, eval_batch)
    search_options, limit = predict.search_settings(task, tokenizer), model.config.n_positions
    began = time.perf_counter()
    our_texts = [str(p.value) for p in predict.decode(task, model, tokenizer, share, batch, limit)]
    middle = time.perf_counter()
    prompts = {example.texts: task.prompt_ids(example, tokenizer) for example in share}
    with predict.evaluating(model):
        generated = {key: beam_search.generated(model, [ids], search_options)[0] for key, ids in prompts.items()}
    their_texts = {key: tokenizer.decode(ids, skip_special_tokens=True).strip() for key, ids in generated.items()}
    ended = time.perf_counter()
    tokens = sum(len(ids) + 1 for ids in generated.values())
    differing = sum(text != their_texts[example.texts] for text, example in zip(our_texts, share, strict=True))
    return (tokens / (middle - began), tokens / (ended - middle)), differing
