"""E2E inputs decoded in batches by our search, against one by one by `generate` of transformers."""

from __future__ import annotations

import time
from functools import partial
from statistics import median
from typing import Any

from bench.harness import DEVICE, Found, Options, Target, number, quartiles, spread
from rosa_bench.config.compose import compose
from rosa_bench.data.source import load_split
from rosa_bench.evaluation import predict, search
from rosa_bench.models.load import load


def measure(options: Options) -> Found:
    """Every round takes its share of the inputs and decodes it both ways; the outputs are compared."""
    found = Found(numbers={"rows": options.rows})
    head = ("decoding", "inputs", "tokens/s in batches", "one by one", "ratio (quartiles)", "other outputs")
    found.tables.append([head])
    for beams in options.beams:
        rates, inputs, others = _rates(options, beams)
        times = [batched / single for batched, single in rates]
        batched, single = (median(values) for values in zip(*rates, strict=True))
        name = "greedy" if beams == 1 else f"{beams} beams"
        found.tables[0].append((name, str(inputs), number(batched), number(single), spread(times), str(others)))
        found.numbers[f"beams {beams}"] = {"tokens_per_s": rates, "ratios": times, "inputs": inputs, "others": others}
        found.targets += [
            Target(f"{name}: tokens/s in batches over one by one", quartiles(times)[1], 8),
            Target(f"{name}: outputs that differ", others, 0, at_least=False),
        ]
    return found


def _rates(options: Options, beams: int) -> tuple[list[tuple[float, float]], int, int]:
    """Tokens per second both ways in each round, the number of inputs, and how many outputs differ."""
    source = ["data=local", f"data.dir={options.data}"] if options.data else []
    how = [f"task.num_beams={beams}", f"task.no_repeat_ngram={4 * (beams > 1)}"]
    run = compose([f"task={options.task}", f"method={options.method}", "tracker=none", *how, *source])
    model, tokenizer = load(run.model, run.task, 0)
    run.method.attach(model, 0)
    model.to(DEVICE)
    examples = load_split(run.task, run.data, "test", options.inputs).examples
    both = partial(_both_ways, run.task, model, tokenizer, options.eval_batch)
    found = [both(examples[i :: options.rounds]) for i in range(options.rounds)]
    return [rates for rates, _ in found], len(examples), sum(others for _, others in found)


def _both_ways(task: Any, model: Any, tokenizer: Any, wanted: int, share: Any) -> tuple[tuple[float, float], int]:
    batch = predict.decoding_batch(task, model, wanted)
    how, limit = predict.how_to_search(task, tokenizer), model.config.n_positions
    began = time.perf_counter()
    ours = [str(p.value) for p in predict.decode(task, model, tokenizer, share, batch, limit)]
    middle = time.perf_counter()
    prompts = {example.texts: task.prompt_ids(example, tokenizer) for example in share}
    with predict.evaluating(model):
        found = {key: search.generated(model, [ids], how)[0] for key, ids in prompts.items()}
    theirs = {key: tokenizer.decode(ids, skip_special_tokens=True).strip() for key, ids in found.items()}
    ended = time.perf_counter()
    tokens = sum(len(ids) + 1 for ids in found.values())
    others = sum(text != theirs[example.texts] for text, example in zip(ours, share, strict=True))
    return (tokens / (middle - began), tokens / (ended - middle)), others
