"""What core itself contributes, through the same hooks as any other dist."""

from __future__ import annotations

from ptsdk.specs import (
    CheckpointFormatSpec,
    CheckpointSourceSpec,
    DatasetSpec,
    LossSpec,
    MethodSpec,
    ModelFamilySpec,
    Spec,
)

PTSDK_API = 1


def ptsdk_model_families() -> list[ModelFamilySpec]:
    """A small model, so that core trains with nothing else installed."""
    summary = "A small decoder for experiments and tests"
    return [ModelFamilySpec("tiny", "ptsdk.builtin.tiny:Tiny", summary, architectures=("TinyForCausalLM",))]


def ptsdk_tokenizers() -> list[Spec]:
    """From a checkpoint's files, or plain bytes."""
    return [
        Spec("auto", "ptsdk.builtin.tokenizers:Auto", "tokenizer.json, tokenizer.model or what the checkpoint carries"),
        Spec("bytes", "ptsdk.builtin.tokenizers:Bytes", "UTF-8 bytes and three special tokens; needs no files"),
    ]


def ptsdk_datasets() -> list[DatasetSpec]:
    """The row formats of the field."""
    module = "ptsdk.builtin.datasets"
    return [
        DatasetSpec("chat", f"{module}:Chat", "{messages} or ShareGPT {conversations}"),
        DatasetSpec("instruct", f"{module}:Instruct", "{prompt, completion} or Alpaca {instruction, input, output}"),
        DatasetSpec("text", f"{module}:Text", "{text}, every token supervised"),
        DatasetSpec(
            "preference",
            f"{module}:Preference",
            "{prompt, chosen, rejected}, strings or messages",
            objective="preference",
        ),
        DatasetSpec("binary", f"{module}:Binary", "{prompt, completion, label}", objective="binary"),
        DatasetSpec(
            "prompts", f"{module}:Prompts", "{prompt, ...}; other columns reach the rewards", objective="policy"
        ),
    ]


def ptsdk_methods() -> list[MethodSpec]:
    """Supervised fine-tuning."""
    return [
        MethodSpec("sft", "ptsdk.builtin.sft:SFT", "Supervised fine-tuning: next-token loss on the supervised tokens")
    ]


def ptsdk_losses() -> list[LossSpec]:
    """Cross-entropy."""
    summary = "Cross-entropy, fused with the projection and chunked"
    return [LossSpec("cross_entropy", "ptsdk.builtin.losses:CrossEntropy", summary)]


def ptsdk_adapters() -> list[Spec]:
    """No adapter."""
    return [Spec("full", "ptsdk.builtin.full:Full", "Every weight trains", supports=frozenset({"full"}))]


def ptsdk_optimizers() -> list[Spec]:
    """torch's own."""
    module = "ptsdk.builtin.optimizers"
    return [
        Spec("adamw", f"{module}:AdamW", "Adam with decoupled weight decay (arXiv:1711.05101)"),
        Spec("sgd", f"{module}:SGD", "Stochastic gradient descent with momentum"),
        Spec("adafactor", f"{module}:Adafactor", "Factored second moments (arXiv:1804.04235)"),
        Spec(
            "muon",
            f"{module}:Muon",
            "Orthogonalised momentum for matrices, AdamW for the rest",
            supports=frozenset({"compiled-step"}),
        ),
    ]


def ptsdk_schedules() -> list[Spec]:
    """Pure functions of the step."""
    module = "ptsdk.builtin.schedules"
    return [
        Spec("constant", f"{module}:Constant", "Warm-up, then constant"),
        Spec("linear", f"{module}:Linear", "Warm-up, then a line to zero"),
        Spec("cosine", f"{module}:Cosine", "Warm-up, then half a cosine"),
        Spec("wsd", f"{module}:WSD", "Warm-up, stable, decay"),
    ]


def ptsdk_strategies() -> list[Spec]:
    """One process."""
    return [Spec("single", "ptsdk.builtin.single:Single", "One process, one device")]


def ptsdk_loggers() -> list[Spec]:
    """The terminal and a file."""
    module = "ptsdk.builtin.loggers"
    return [
        Spec("console", f"{module}:Console", "Progress bar with loss, tokens/s and time left"),
        Spec("jsonl", f"{module}:Jsonl", "metrics.jsonl in the output directory"),
    ]


def ptsdk_callbacks() -> list[Spec]:
    """Early stopping."""
    return [Spec("early_stopping", "ptsdk.builtin.callbacks:EarlyStopping", "Stop when a metric no longer improves")]


def ptsdk_checkpoint_sources() -> list[CheckpointSourceSpec]:
    """The hub, and files inside installed packages. A path without a scheme is local."""
    module = "ptsdk.builtin.sources"
    return [
        CheckpointSourceSpec("hub", f"{module}:Hub", "hf://org/name[@revision]", schemes=("hf",)),
        CheckpointSourceSpec("package", f"{module}:Package", "pkg://dist[/file], whole or in parts", schemes=("pkg",)),
    ]


def ptsdk_checkpoint_formats() -> list[CheckpointFormatSpec]:
    """The layout that transformers writes."""
    summary = "A folder with config.json and safetensors"
    writes = frozenset({"write"})
    return [
        CheckpointFormatSpec(
            "safetensors", "ptsdk.builtin.formats:Safetensors", summary, supports=writes, suffixes=("",)
        )
    ]


def ptsdk_rollout_engines() -> list[Spec]:
    """The project's own generation."""
    return [Spec("local", "ptsdk.builtin.rollout:Local", "In process, with a KV cache and continuous slots")]


def ptsdk_commands() -> list[Spec]:
    """One file a verb."""
    return [
        Spec("run", "ptsdk.cli.run:run", "Train what a job file says"),
        Spec("check", "ptsdk.cli.check:check", "Find every fault of a job file without running it"),
        Spec("plan", "ptsdk.cli.plan:plan", "The memory a job needs, and what would save some"),
        Spec("plugins", "ptsdk.cli.plugins:plugins", "Installed plugins and their health"),
        Spec("list", "ptsdk.cli.list:list_components", "Components by kind"),
        Spec("show", "ptsdk.cli.show:show", "One component and its options"),
        Spec("schema", "ptsdk.cli.schema:schema", "JSON Schema of the job file, from what is installed"),
        Spec("doctor", "ptsdk.cli.doctor:doctor", "What is wrong with this environment, and the fix"),
        Spec("conform", "ptsdk.cli.conform:conform", "Run the conformance suites over what a plugin contributes"),
        Spec("data", "ptsdk.cli.data:data", "The rows of a job as the model sees them"),
        Spec("diff", "ptsdk.cli.diff:diff", "Why two runs differ, and where their losses part"),
        Spec("generate", "ptsdk.cli.generate:generate", "Text from a model"),
        Spec("report", "ptsdk.cli.report:report", "What became of a run, or of several beside each other"),
        Spec("download", "ptsdk.cli.download:download", "A model on this machine, before a job asks for it"),
        Spec("export", "ptsdk.cli.export:export", "A trained model for other programs, adapters merged or not"),
    ]
