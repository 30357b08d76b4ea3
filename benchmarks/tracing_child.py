"""Measure one case of the tracing benchmark in a separate process, so that its peak is exact.

`python -m benchmarks.tracing_child` reads a job as JSON on stdin and prints its result as JSON.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from benchmarks import tracing_references as references
from benchmarks.tracing_cases import Case, Parity, Result, Settings, job_from_json
from benchmarks.tracing_memory import Memory, eager_bytes, free_bytes
from benchmarks.tracing_model import N_UNITS, SIZES, Prompt, build_model, make_prompt
from omnitrace_core.backends.base import PrefilledPrompt
from omnitrace_core.backends.caches import growing_cache
from omnitrace_core.tracing.folding import fold_rows
from omnitrace_core.tracing.replay.decoder_replay import ReplaySlice, replay
from omnitrace_core.tracing.signals import load_signal

if TYPE_CHECKING:
    from torch import Tensor

_WARM_UP_PROMPT, _WARM_UP_TOKENS = 64, 4


def measure(case: Case, settings: Settings) -> Result:
    """Run one case in this process: a short warm-up, then the case itself."""
    if case.mode == "eager":
        needed = eager_bytes(SIZES[settings.size], case.prompt, settings.tokens, settings.dtype)
        free = free_bytes(settings.device)
        if needed > free:
            reason = f"needs about {needed / 2**30:,.0f} GiB, {free / 2**30:,.0f} GiB are free"
            return Result(case, skipped=reason)
    runner = Runner(case, settings)
    prompt = runner.prompt(case.prompt)
    runner.run(runner.prompt(_WARM_UP_PROMPT), _WARM_UP_TOKENS)
    runner.memory.start()
    return runner.run(prompt, settings.tokens)


class Runner:
    """Holds the model of a case, and runs each mode."""

    def __init__(self, case: Case, settings: Settings, model: Any = None) -> None:
        """model: a model with these settings, if one is built already; by default one is built."""
        self.case, self.settings = case, settings
        self.memory = Memory(settings.device)
        slow = case.mode in ("eager", "per-token")
        self.model = model or build_model(
            SIZES[settings.size],
            "eager" if slow else "sdpa",
            settings.device,
            settings.dtype,
            settings.seed,
        )

    def prompt(self, length: int) -> Prompt:
        """A prompt that is the same for every case of this shape."""
        settings = self.settings
        vocabulary = SIZES[settings.size].vocabulary
        return make_prompt(vocabulary, self.case.batch, length, settings.device, settings.seed)

    def run(self, prompt: Prompt, tokens: int) -> Result:
        """Measure the case. The slow methods run once, and their rows are compared with ours."""
        if self.case.mode == "eager":
            return self._eager(prompt, tokens)
        if self.case.mode == "per-token":
            return self._per_token(prompt, tokens)
        begun = self.now()
        timed = [self._generate_and_trace(prompt, tokens)]
        while len(timed) < self.settings.repeats and self.now() - begun < self.settings.case_s:
            timed.append(self._generate_and_trace(prompt, tokens))
        generate_s = tuple(generation for generation, _ in timed)
        added_s = tuple(added for _, added in timed) if self.case.signals else ()
        return self._result(generate_s, added_s, self.memory.peak_bytes())

    def _result(
        self,
        generate_s: tuple[float, ...],
        added_s: tuple[float, ...],
        peak_bytes: int,
        parity: Parity | None = None,
    ) -> Result:
        built = self.memory.built_bytes
        return Result(self.case, "", generate_s, added_s, built, peak_bytes, parity)

    def _generate_and_trace(self, prompt: Prompt, tokens: int) -> tuple[float, float]:
        """Seconds of one generation, and of the replay and all folds after it."""
        start = self.now()
        output = self.generate(prompt, tokens)
        generated = self.now()
        if self.case.signals:
            self.trace(prompt, output, self.case.signals)
        return generated - start, self.now() - generated

    def trace(self, prompt: Prompt, output: Any, signals: Sequence[str]) -> None:
        """Replay the result of `generate` and fold each signal's rows. May be called repeatedly."""
        responses = _responses(output, prompt)
        slices = self._replay(prompt, output.past_key_values, responses, signals)
        for replayed in slices:
            _fold(replayed, prompt)

    def _eager(self, prompt: Prompt, tokens: int) -> Result:
        start = self.now()
        output = self.generate(prompt, tokens, output_attentions=True)
        generated = self.now()
        wanted = references.attmean(output.attentions)
        averaged = self.now()
        peak = self.memory.peak_bytes()
        responses = _responses(output, prompt)
        del output
        parity = references.compare(wanted, self._rows_of(prompt, responses, "attmean"))
        return self._result((generated - start,), (averaged - generated,), peak, parity)

    def _per_token(self, prompt: Prompt, tokens: int) -> Result:
        responses = _responses(self.generate(prompt, tokens), prompt)
        steps = references.spread(tokens, self.settings.gradient_steps)
        self.model.requires_grad_(True)
        start = self.now()
        wanted = [references.attgrads(self.model, prompt, responses[0], step) for step in steps]
        scaled = (self.now() - start) / len(steps) * tokens
        peak = self.memory.peak_bytes()
        self.model.requires_grad_(False)
        ours = self._rows_of(prompt, responses, "attgrads")[steps]
        return self._result((), (scaled,), peak, references.compare(wanted, ours))

    def generate(
        self,
        prompt: Prompt,
        tokens: int,
        output_attentions: bool = False,
        past_key_values: Any = None,
    ) -> Any:
        """Generate exactly `tokens` tokens per prompt; return the model's output.

        past_key_values: a cache that already holds the first positions of the prompts.
        """
        output = self.model.generate(
            **prompt.inputs,
            max_new_tokens=tokens,
            return_dict_in_generate=True,
            output_attentions=output_attentions,
            past_key_values=past_key_values,
        )
        found = output.sequences.shape[1] - prompt.length
        if found != tokens:
            raise RuntimeError(f"{found} tokens were generated instead of {tokens}")
        return output

    def _replay(
        self,
        prompt: Prompt,
        cache: Any,
        responses: Sequence[Sequence[int]],
        signals: Sequence[str],
    ) -> Iterator[ReplaySlice]:
        """Replay as the backend and the tracer do. cache: holds the prompt, perhaps more."""
        state = PrefilledPrompt(
            cache=cache,
            attention_mask=prompt.inputs["attention_mask"],
            last_embedding=self.model.get_input_embeddings()(prompt.inputs["input_ids"][:, -1:]),
            position_delta=self.model.model.rope_deltas.clone(),
        )
        return replay(
            self.model.model.language_model,
            self.model.lm_head,
            state,
            responses,
            {name: load_signal(name) for name in signals},
            self.settings.rows_mib * 2**20,
        )

    def _rows_of(self, prompt: Prompt, responses: Sequence[Sequence[int]], signal: str) -> Tensor:
        """Our rows of one sample's known response, [n, K], by SDPA and the replay."""
        import torch

        self.model.set_attn_implementation("sdpa")
        with torch.no_grad():
            filled = self.model.model(
                **prompt.inputs, use_cache=True, past_key_values=growing_cache()
            )
        slices = self._replay(prompt, filled.past_key_values, responses, [signal])
        rows = torch.cat([replayed.rows[signal][0] for replayed in slices])
        self.model.set_attn_implementation("eager")
        return rows

    def now(self) -> float:
        """The clock in seconds, after the device has finished its work."""
        if self.settings.device != "cpu":
            import torch

            torch.cuda.synchronize()
        return time.perf_counter()


def _responses(output: Any, prompt: Prompt) -> list[list[int]]:
    found: list[list[int]] = output.sequences[:, prompt.length :].tolist()
    return found


def _fold(replayed: ReplaySlice, prompt: Prompt) -> None:
    for row, unit_index in enumerate(prompt.unit_index):
        for rows in replayed.rows.values():
            fold_rows(rows[row], unit_index, N_UNITS)


def main() -> None:
    """Measure the case from stdin."""
    import torch

    case, settings = job_from_json(sys.stdin.read())
    torch.set_num_threads(settings.threads)
    print(json.dumps(asdict(measure(case, settings))))


if __name__ == "__main__":
    main()
