"""The engine for GPUs: vLLM. Its numbers are those of the reference engine, up to the rounding of the number format.

The model runs in vLLM's workers (`langneurons.engines.vllm_worker`); this side sends them windows and prompts, and
gathers what they recorded. Edits that are edits of weights cost nothing at run time and leave torch.compile and CUDA
graphs on. The others need hooks, which compiled models do not call: the engine must then be loaded with `eager`.
"""

from __future__ import annotations

import importlib.util
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

from langneurons.corpus.sentences import Sentence
from langneurons.engines.base import NOT_FINITE, Completion, EffectProof, EngineError, Sampling, WindowLoss
from langneurons.engines.completion import completion, end_tokens, generation_config_of
from langneurons.engines.folding import check_compiled, folds
from langneurons.engines.hidden import HiddenStates, compare_hidden
from langneurons.engines.limits import Limits
from langneurons.engines.proof import FeedForward, check_layout, compare_with_expectation, layout_probe
from langneurons.engines.shards import gather
from langneurons.engines.streams import stream_seeds
from langneurons.interventions import Intervention
from langneurons.models.layouts import supported_architecture, vllm_layout_of
from langneurons.models.loading import check_model, check_weights
from langneurons.models.tokenizer import load_tokenizer
from langneurons.neurons.counting import ActivationCounts
from langneurons.neurons.sentences import SentenceMeans, as_float16
from langneurons.neurons.sharding import TOGETHER
from langneurons.progress import progress

WORKER = "langneurons.engines.vllm_worker.NeuronWorker"
LONGEST = 8192
"""Tokens of the longest text by default, where the model's context is longer: memory is kept for one such text."""
BATCHED = 8192
"""Tokens that are read at a time, where the size of windows does not say it."""
LOOKUP = (AttributeError, KeyError, TypeError)
"""What vLLM's loaders raise of a model that is not as they expect it."""
GROUP = TOGETHER["vllm"]
"""Batches that are sent to vLLM at a time."""


class VllmEngine:
    """A model in vLLM with its tokenizer."""

    def __init__(self, llm: Any, tokenizer: Any, batch_size: int, eager: bool) -> None:
        self.llm = llm
        self.tokenizer = tokenizer
        self.batch_size = batch_size
        self.eager = eager
        config = llm.llm_engine.vllm_config
        self.config = config.model_config.hf_config
        architecture = supported_architecture(self.config.architectures)
        layers, neurons, self.width = self._call("ffn_shape")[0]
        self.shape = (layers, neurons)
        self.gated = self._call("is_gated")[0]
        self.end_tokens = end_tokens(generation_config_of(config.model_config.model, self.config), tokenizer)
        self.limits = Limits.of(config.model_config.model, config.model_config.get_vocab_size(), self.config)
        self.limits.check_tokenizer(tokenizer, self.end_tokens)
        self.room = replace(self.limits, context=config.model_config.max_model_len)
        """The context that vLLM was started with."""
        self.description = {
            "architecture": architecture,
            "dtype": str(config.model_config.dtype).removeprefix("torch."),
            "device": config.device_config.device_type,
            "engine": "vllm",
            "mode": "eager" if eager else "compiled",
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "vllm": importlib.import_module("vllm").__version__,
        }

    @classmethod
    def load(
        cls,
        model: str,
        revision: str | None = None,
        dtype: str = "float32",
        gpus: int = 0,
        threads: int = 1,
        batch_size: int = 32,
        generation_batch_size: int = 32,
        attention: str | None = None,
        eager: bool = True,
        window: int = 0,
        interventions: Sequence[Intervention] = (),
        workers: int = 0,
    ) -> VllmEngine:
        """Start vLLM on a folder or hub id.

        Args:
            model, revision, dtype: as for the reference engine.
            gpus: so many GPUs share the neurons of every layer; 0 needs vLLM's build for CPUs.
            threads: CPU threads, without GPUs.
            batch_size: windows per batch.
            generation_batch_size: prompts that are answered at a time.
            attention: not for vLLM, which chooses its own.
            eager: without torch.compile and CUDA graphs.
            window: tokens of the longest window; the model's context by default.
            interventions: the edits to come; one that vLLM cannot make is refused before anything is loaded.
            workers: so many processes of their own share the neurons of every layer; by default one per GPU, and this
                process alone on the CPU and on one GPU.

        Raises:
            ModelError, EngineError: with what to do.
        """
        if attention is not None:
            raise EngineError(f"the model '{model}' asks for 'attention: {attention}', but vLLM chooses its own.")
        check_installed(model, gpus)
        folder, config = check_model(model, revision, dtype, gpus)
        layout = vllm_layout_of(config.architectures)
        check_weights(model, revision, folder, config)
        for intervention in interventions:
            check_edit(intervention, layout.gate_up is not None, eager)
        tokenizer = load_tokenizer(folder)
        longest = window or min(getattr(config, "max_position_embeddings", None) or LONGEST, LONGEST)
        set_environment()
        options: dict[str, Any] = {"tensor_parallel_size": workers or max(gpus, 1)}
        if workers:
            options["distributed_executor_backend"] = "mp"
        if not gpus:
            options["kv_cache_memory_bytes"] = int(os.environ.get("VLLM_CPU_KVCACHE_SPACE") or 1) * 2**30
        with keeping_threads(threads if not gpus else torch.get_num_threads()):
            from vllm import LLM

            llm = _started(
                LLM,
                model=folder,
                trust_remote_code=False,
                dtype=dtype,
                max_model_len=longest + 1,  # vLLM wants room for one more token than a window has
                max_num_batched_tokens=max(batch_size * window or BATCHED, longest + 1),
                max_num_seqs=max(batch_size, generation_batch_size),
                enforce_eager=eager,
                enable_prefix_caching=False,  # what another intervention computed must not be used again
                generation_config="vllm",  # not the model's own sampling
                worker_cls=WORKER,
                async_scheduling=False,
                seed=0,
                **options,
            )
        engine = cls(llm, tokenizer, batch_size, eager)
        engine.check_layout()
        return engine

    def check_layout(self) -> None:
        """See `langneurons.engines.proof.check_layout`: all layers, on a few tokens."""
        layers = list(range(self.shape[0]))
        seen = self._captured(layout_probe(self.limits.vocabulary), layers, layers)
        for layer, parts in seen.items():
            found = parts.get("product"), parts.get("activation", parts.get("product")), parts.get("up")
            check_layout(self.limits.model, layer, *found, gated=self.gated)

    def close(self) -> None:
        """Stop vLLM, so that another model can be loaded in this process."""
        from vllm.distributed import cleanup_dist_env_and_memory

        self.llm.llm_engine.engine_core.shutdown()
        del self.llm
        cleanup_dist_env_and_memory()

    def _call(self, method: str, *args: Any) -> list[Any]:
        """Call a method of all workers; their answers in the order of their ranks."""
        try:
            return list(self.llm.collective_rpc(method, args=args))
        except RuntimeError as error:  # of a worker in a process of its own
            told = re.match(r"Worker failed with error '(.*)', please check", str(error), re.DOTALL)
            raise (EngineError(told[1]) if told else error) from None

    def _run(self, prompts: Sequence[Sequence[int]], seeds: Sequence[int] = (), **options: Any) -> list[Any]:
        """Let vLLM read prompts, and write as it is told: by default one token, which is thrown away. `seeds` are those
        of each prompt's random numbers."""
        from vllm import SamplingParams

        settings = {"max_tokens": 1, "temperature": 0.0, "detokenize": False} | options
        requests = [{"prompt_token_ids": list(ids)} for ids in prompts]
        try:
            parameters = [SamplingParams(**settings, seed=seed) for seed in seeds] or SamplingParams(**settings)
            return list(self.llm.generate(requests, parameters, use_tqdm=False))
        except (RuntimeError, ValueError) as error:
            reason = " ".join(str(error).split())[:500]
            raise EngineError(f"vLLM stopped: {reason} Use engine: hf if this model is not for vLLM.") from error

    def _groups(self, windows: np.ndarray, description: str) -> Iterator[np.ndarray]:
        """Several batches at a time, so that vLLM does not wait between them."""
        size = self.batch_size * GROUP
        for start in progress(range(0, len(windows), size), description, unit="group"):
            yield windows[start : start + size]

    # -- recording ----------------------------------------------------------------------------------------------------

    def record(self, windows: np.ndarray, sums: bool = True) -> ActivationCounts:
        """Count in the workers; every one of the tokens sent must have been counted once."""
        self.limits.check_windows(windows)
        self._call("start_recording", sums)
        try:
            for group in self._groups(windows, "recording"):
                self._run(group.tolist())
                self._call("end_batch", group.size)
            parts = self._call("recorded")
        finally:
            self._call("stop_watching")
        shared = parts[0]
        counts = ActivationCounts(
            gather([part["over_zero"] for part in parts]),
            gather([part["activation_sum"] for part in parts]) if sums else None,
            gather([part["product_sum"] for part in parts]) if sums else None,
            int(windows.size),
            hidden_sum=shared["hidden_sum"] if sums else None,
        )
        counts.check()
        return counts

    def sentence_means(self, windows: np.ndarray, sentences: Sequence[Sentence]) -> SentenceMeans:
        """As many windows at a time as one step of vLLM reads, so that their tokens come in a known order."""
        self.limits.check_windows(windows)
        layers, neurons = self.shape
        result = np.zeros((len(sentences), layers, neurons), dtype=np.float16)
        used = sorted({sentence.window for sentence in sentences})
        for start in progress(range(0, len(used), self.batch_size), "recording sentences", unit="batch"):
            numbers = used[start : start + self.batch_size]
            chosen = [index for index, sentence in enumerate(sentences) if sentence.window in numbers]
            batch = windows[numbers]
            weights = np.zeros((len(chosen), batch.size), dtype=np.float32)
            for row, index in enumerate(chosen):
                sentence = sentences[index]
                first = numbers.index(sentence.window) * windows.shape[1]
                weights[row, first + sentence.start : first + sentence.stop] = 1 / sentence.tokens
            self._call("start_sentences", weights)
            try:
                self._run(batch.tolist())
                parts = self._call("sentences")
            finally:
                self._call("stop_watching")
            if not np.array_equal(parts[0][1], batch.reshape(-1)):
                raise EngineError("vLLM read the windows in another order than they were sent. Lower batch_size.")
            result[chosen] = as_float16(gather([part[0] for part in parts]))
        means = SentenceMeans(result, np.array([sentence.tokens for sentence in sentences], dtype=np.int64))
        means.check()
        return means

    # -- editing ------------------------------------------------------------------------------------------------------

    @contextmanager
    def perturbed(self, intervention: Intervention) -> Iterator[None]:
        """Edit weights where that says the same, else by hooks in the workers; undone when the block ends."""
        intervention.check(*self.shape, self.width)
        check_edit(intervention, self.gated, self.eager)
        method = "fold"
        if not folds(intervention, self.gated):
            method = "shift" if intervention.site == "residual" else "edit_activation"
        try:
            self._call(method, intervention.by_layer())
            yield
        finally:
            self._call("restore")

    def verify(self, intervention: Intervention, probe: np.ndarray) -> EffectProof:
        """See `langneurons.engines.proof`. FFN vectors are seen in the model's Python, which has the same weights as
        its graphs; the log-probabilities are those of the running engine."""
        if len(intervention) == 0:
            return EffectProof(0, note="the set of neurons is empty; nothing was edited")
        self.limits.check_windows(probe)
        without = self._log_probabilities(probe)
        with self.perturbed(intervention):
            change = float(np.abs(self._log_probabilities(probe) - without).max())
        if intervention.site == "residual":
            return self._verify_shift(intervention, probe, change)
        edited = intervention.by_layer()
        before, upto = list(range(min(edited))), list(range(max(edited) + 1))
        baseline = self._captured(probe, before)
        with self.perturbed(intervention):
            outputs = self._captured(probe, upto, edited)
        equal = all(torch.equal(baseline[layer]["output"], outputs[layer]["output"]) for layer in before)
        return compare_with_expectation(intervention, lambda layer: self._ffn(layer, outputs[layer]), equal, change)

    def _captured(self, probe: np.ndarray, layers: list[int], whole: Any = ()) -> dict[int, dict[str, torch.Tensor]]:
        """FFN vectors on the probe: outputs of all of these layers, and the neurons' of those in `whole`."""
        self._call("start_capture", layers)
        try:
            self._run(probe.tolist())
            return {layer: self._joined(layer, layer in whole) for layer in layers}
        finally:
            self._call("stop_watching")

    def _joined(self, layer: int, whole: bool) -> dict[str, torch.Tensor]:
        answers = self._call("capture", layer)
        parts = [part for part, _ in answers]
        outputs = [part["output"] for part, is_part in answers if is_part]
        joined = {"output": torch.stack(outputs).sum(0) if outputs else parts[0]["output"]}
        if whole:
            joined |= {name: torch.cat([part[name] for part in parts], dim=-1) for name in parts[0].keys() - joined}
        return joined

    def _ffn(self, layer: int, captured: dict[str, torch.Tensor]) -> FeedForward:
        weights = self._call("down_weight", layer)
        return FeedForward(
            product=captured["product"],
            activation=captured.get("activation"),
            up=captured.get("up"),
            output=captured["output"],
            weight=torch.cat([weight for weight, _ in weights], dim=-1),
            bias=weights[0][1],
        )

    def _verify_shift(self, intervention: Intervention, probe: np.ndarray, change: float) -> EffectProof:
        """The same for a shift of the hidden states."""
        baseline = self._hidden(probe)
        with self.perturbed(intervention):
            edited = self._hidden(probe)
        return compare_hidden(intervention, baseline, edited, change)

    def _hidden(self, probe: np.ndarray) -> HiddenStates:
        self._call("start_hidden_capture")
        try:
            self._run(probe.tolist())
            return HiddenStates(*self._call("hidden_capture")[0])
        finally:
            self._call("stop_watching")

    # -- perplexity ---------------------------------------------------------------------------------------------------

    def token_nll(self, windows: np.ndarray) -> WindowLoss:
        """Negative log-likelihood in float32 per token, summed per window in float64."""
        self.limits.check_windows(windows)
        groups = [self._log_probabilities(group) for group in self._groups(windows, "perplexity")]
        sums = np.concatenate([-group.sum(axis=1) for group in groups]) if groups else np.zeros(0)
        if not np.isfinite(sums).all():
            raise EngineError(NOT_FINITE.format("log-likelihoods"))
        return WindowLoss(sums, np.full(len(windows), windows.shape[1] - 1, dtype=np.int64))

    def _log_probabilities(self, windows: np.ndarray) -> np.ndarray:
        """Log-probability of every token but the first, float64 `[window, position - 1]`."""
        rows = windows.tolist()
        answers = self._run(rows, prompt_logprobs=0)
        return np.array(
            [
                # The most likely token may stand beside the one that was read.
                [found[token].logprob for token, found in zip(row[1:], answer.prompt_logprobs[1:], strict=True)]
                for row, answer in zip(rows, answers, strict=True)
            ]
        )

    # -- generation ---------------------------------------------------------------------------------------------------

    def generate(self, prompts: Sequence[str], sampling: Sampling) -> list[Completion]:
        """Continue prompts; vLLM batches them."""
        if not prompts:
            return []
        encoded: list[list[int]] = self.tokenizer(list(prompts))["input_ids"]
        for limits in (self.limits, self.room):
            limits.check_prompts(encoded, sampling.max_new_tokens)
        answers = self._run(
            encoded,
            stream_seeds(prompts, sampling.seed) if sampling.temperature > 0 else (),
            max_tokens=sampling.max_new_tokens,
            temperature=sampling.temperature,
            repetition_penalty=sampling.repetition_penalty,
            stop=list(sampling.stop),
            stop_token_ids=self.end_tokens,
            ignore_eos=True,  # the end-of-text tokens are those above
            detokenize=True,
            logprobs=0,  # of the tokens that were chosen: NaN where the scores are
        )
        if not np.isfinite([answer.outputs[0].cumulative_logprob for answer in answers]).all():
            raise EngineError(NOT_FINITE.format("scores of the next token"))
        return [
            completion(answer.outputs[0].token_ids, self.end_tokens, sampling.stop, self.decode) for answer in answers
        ]

    def decode(self, ids: Sequence[int]) -> str:
        """The text of generated tokens."""
        text: str = self.tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return text


def _started(start: Any, **options: Any) -> Any:
    """Start vLLM; what it refuses ends with one message."""
    try:
        return start(**options)
    except (ValueError, RuntimeError, NotImplementedError, AssertionError, *LOOKUP) as error:
        reason = " ".join(str(error).split())[:500]
        raise EngineError(
            f"vLLM cannot load the model '{options['model']}': {reason} Correct its settings, or set engine: hf."
        ) from error


def check_edit(intervention: Intervention, gated: bool, eager: bool) -> None:
    """Raise EngineError if vLLM cannot make an edit."""
    if intervention.site == "residual" and (intervention.table["keep"] != 1).any():
        raise EngineError("in vLLM the hidden state can only be shifted (keep 1). Use engine: hf.")
    if not eager:
        check_compiled(intervention, gated)


def check_installed(model: str, gpus: int) -> None:
    """Raise EngineError if vLLM is missing, or built for another kind of machine than the config asks for."""
    if importlib.util.find_spec("vllm") is None:
        raise EngineError(
            f"the model '{model}' asks for engine: vllm, but vLLM is not installed. Install it with: make setup-vllm "
            "(without a GPU: make setup-vllm-cpu), or set engine: hf."
        )
    from vllm.platforms import current_platform

    if bool(gpus) == current_platform.is_cpu():
        build, remedy = ("CPUs", "gpus: 0") if gpus else ("GPUs", "gpus: 1")
        raise EngineError(
            f"the model '{model}' asks for {gpus} GPU(s), but the vLLM that is installed runs on {build}. Set "
            f"'{remedy}', or engine: hf."
        )


def set_environment() -> None:
    """What vLLM reads from the environment; what is set there already stays."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    defaults = {
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # in one process the same batches come in the same order
        "VLLM_ALLOW_LONG_MAX_MODEL_LEN": "1",  # for the one token that is thrown away
        "VLLM_LOGGING_LEVEL": "ERROR",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # how many jobs share the CPU is Snakemake's to say
        # Down projections with a bias make other graphs than vLLM's own, which the key of its cache does not tell.
        "VLLM_CACHE_ROOT": str(cache / "langneurons" / "vllm"),
    }
    for name, value in defaults.items():
        os.environ.setdefault(name, value)


@contextmanager
def keeping_threads(threads: int) -> Iterator[None]:
    """Set the number of CPU threads, and take back that vLLM forbids to set it."""
    torch.set_num_threads(threads)
    allowed = torch.set_num_threads
    try:
        yield
    finally:
        torch.set_num_threads = allowed
