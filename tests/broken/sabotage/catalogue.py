"""Every sabotaged component: its kind, its class, and the standard test that it fails. No torch here."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

PACKAGE = "tests.broken.sabotage"


@dataclass(frozen=True)
class Sabotage:
    """One component; ``spec`` are fields of its spec."""

    kind: str
    target: str
    caught_by: str
    spec: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """What a job would call it."""
        return self.target.rpartition(":")[2].lower()


def _of(kind: str, module: str, caught: dict[str, str], **spec: Any) -> list[Sabotage]:
    return [Sabotage(kind, f"{PACKAGE}.{module}:{cls}", test, spec) for cls, test in caught.items()]


TINY = {"architectures": ("TinyForCausalLM",)}
FOLDER = {"suffixes": ("",)}

ALL: list[Sabotage] = [
    *_of(
        "schedule",
        "schedules",
        {
            "Undescribed": "test_options_are_described",
            "Lenient": "test_unknown_options_are_refused",
            "Rounding": "test_options_survive_the_record",
            "Thawed": "test_options_cannot_be_changed",
            "Negative": "test_factors_are_fractions",
            "Impure": "test_is_a_pure_function",
            "Cold": "test_warms_up",
            "IdleWhenShort": "test_some_step_learns",
        },
    ),
    *_of(
        "reward",
        "rewards",
        {
            "Speechless": "test_gives_a_number_for_each_completion",
            "Ranked": "test_judges_each_completion_by_itself",
            "Scribbling": "test_leaves_the_rows_alone",
        },
    ),
    *_of(
        "command",
        "commands",
        {
            "wordless": "test_helps",
            "bare": "test_options_have_help",
            "swallowing": "test_refuses_unknown_options",
        },
    ),
    *_of(
        "tokenizer",
        "tokenizers",
        {
            "ClaimsAModel": "test_says_whether_it_needs_a_model",
            "Squeezing": "test_text_comes_back",
            "Backwards": "test_offsets_go_along_the_text",
            "ClaimsBos": "test_special_tokens_have_ids",
            "Unsaved": "test_saves_what_it_reads",
            "OtherWhenReleased": "test_released_it_is_the_same",
            "OtherEachTime": "test_fingerprint_is_of_what_decides_ids",
        },
    ),
    *_of(
        "optimizer",
        "optimizers",
        {
            "Climbing": "test_descends_a_quadratic",
            "Hiding": "test_takes_every_parameter_once",
            "Forgetful": "test_state_survives_a_checkpoint",
            "FixedRate": "test_follows_the_rate_of_its_groups",
            "DecaysAll": "test_leaves_what_has_no_gradient",
        },
    ),
    *_of(
        "optimizer",
        "optimizers",
        {"BakedRate": "test_a_compiled_step_is_the_step"},
        supports=frozenset({"compiled-step"}),
    ),
    *_of(
        "loss",
        "losses",
        {
            "Boxed": "test_returns_a_sum_and_its_weight",
            "MaskBlind": "test_what_carries_no_loss_is_inert",
            "MaskCounted": "test_what_carries_no_loss_is_inert",
            "Mean": "test_a_step_may_be_cut_anywhere",
            "TwiceTheGradient": "test_gradient_is_that_of_finite_differences",
            "Overflowing": "test_is_finite_at_extremes",
            "BareHead": "test_takes_the_whole_head",
            "AllLogits": "test_makes_no_logits_of_all_rows",
        },
    ),
    *_of(
        "loss",
        "losses",
        {
            "PeeksAtReference": "test_what_carries_no_loss_is_inert",
            "Column": "test_returns_a_sum_and_its_weight",
        },
        objective="preference",
    ),
    *_of(
        "loss",
        "losses",
        {"CompletionMean": "test_a_step_may_be_cut_anywhere", "Exploding": "test_is_finite_at_extremes"},
        objective="policy",
    ),
    *_of("loss", "distillation", {"Underflowing": "test_is_finite_at_extremes"}, methods=("kd",)),
    *_of(
        "dataset",
        "datasets",
        {
            "ReversedOnce": "test_reads_the_same_every_time",
            "Unordered": "test_reads_the_same_every_time",
            "ReversedByNumber": "test_rows_by_number_are_the_rows",
            "ByRank": "test_does_not_depend_on_the_world",
            "ByProcess": "test_does_not_depend_on_the_world",
            "Remembering": "test_encoding_a_row_is_pure",
            "OutOfRange": "test_examples_fit_the_objective",
            "Unsupervised": "test_something_is_supervised",
            "Placeless": "test_bad_rows_are_named",
            "SameFingerprint": "test_fingerprint_is_of_the_content",
        },
    ),
    *_of(
        "logger",
        "listeners",
        {
            "StrictNumbers": "test_takes_every_event",
            "NeedsAStep": "test_takes_the_end_of_a_failed_run",
            "Drawing": "test_leaves_the_run_alone",
            "Straying": "test_writes_in_the_run_alone",
            "Eponymous": "test_writes_in_the_run_alone",
            "Temporary": "test_writes_in_the_run_alone",
            "Absolute": "test_writes_in_the_run_alone",
            "Amnesiac": "test_state_comes_back",
        },
    ),
    *_of("callback", "listeners", {"SaysTrue": "test_stops_with_a_reason"}),
    *_of(
        "adapter",
        "adapters",
        {
            "StartsElsewhere": "test_starts_as_the_base",
            "FreezesOne": "test_trains_what_it_owns",
            "Detached": "test_every_own_parameter_learns",
            "Unseeded": "test_starts_are_of_the_seed_and_name",
            "NeverOff": "test_disabled_it_is_the_base",
            "SavesHalf": "test_what_is_saved_is_loaded",
            "MergesTwice": "test_merged_it_is_the_adapted_model",
        },
    ),
    *_of(
        "quantizer",
        "quantizers",
        {
            "NotLinear": "test_swaps_without_storage",
            "Louder": "test_is_close_to_the_model",
            "RolledScales": "test_packs_row_by_row",
            "Blocking": "test_gradients_pass",
            "ConvertsElse": "test_convert_keeps_what_was_trained",
            "NeverConverts": "test_convert_ends_the_simulation",
            "StoresElse": "test_what_is_stored_is_what_computes",
        },
    ),
    *_of(
        "strategy",
        "strategies",
        {
            "Doubling": "test_alone_it_is_the_main_process",
            "OneBitOff": "test_gathers_what_it_loaded",
            "Negating": "test_a_step_is_that_of_plain_torch",
            "LargestGradient": "test_measures_the_norm_of_all_gradients",
            "RoundedNorm": "test_measures_the_norm_of_all_gradients",
            "LosesState": "test_optimizer_state_comes_back",
        },
    ),
    *_of(
        "rollout-engine",
        "rollouts",
        {
            "NothingForNone": "test_completes_each_prompt",
            "ByBatch": "test_draws_by_seed_and_place",
            "HalfLogProbs": "test_log_probs_are_the_policy_s",
            "NeverStops": "test_stops_at_stop_tokens",
            "LeavesEval": "test_leaves_the_policy_alone",
        },
    ),
    *_of("checkpoint-source", "sources", {"NoScheme": "test_declares_schemes"}),
    *_of(
        "checkpoint-source",
        "sources",
        {"Inventing": "test_says_what_is_not_there", "ElsewhereEachTime": "test_fetches_the_same_twice"},
        schemes=("sabotage",),
    ),
    *_of(
        "checkpoint-format",
        "formats",
        {
            "TakesAll": "test_knows_its_own",
            "Turned": "test_tensors_are_what_is_listed",
            "Hushing": "test_damage_is_told",
        },
        **FOLDER,
    ),
    *_of(
        "checkpoint-format",
        "formats",
        {"LosesOne": "test_what_is_written_is_read"},
        supports=frozenset({"write"}),
        **FOLDER,
    ),
    *_of("checkpoint-format", "formats", {"NoSuffix": "test_declares_suffixes"}),
    *_of(
        "method",
        "methods",
        {
            "LearnsNothing": "test_learns",
            "LocalWeight": "test_accumulation_changes_nothing",
            "MeanOfValidation": "test_validation_may_be_cut_anywhere",
            "Counting": "test_resumes_to_the_bit",
            "SupervisesAll": "test_only_supervised_tokens_carry_loss",
            "SometimesMetrics": "test_metrics_are_the_same_in_every_micro_batch",
            "LiveFiller": "test_a_process_without_data_keeps_step",
        },
    ),
    *_of(
        "model-family",
        "families",
        {
            "Misnamed": "test_config_is_whole",
        },
        architectures=("OtherForCausalLM",),
    ),
    *_of(
        "model-family",
        "families",
        {
            "TakesAnyKey": "test_refuses_unknown_keys",
            "Storing": "test_is_built_without_storage",
            "Random": "test_new_weights_are_of_the_seed_and_name",
            "LooksAhead": "test_a_token_changes_nothing_before_it",
            "SeesNeighbours": "test_packed_documents_are_as_alone",
            "LosesPlace": "test_the_cache_is_the_full_pass",
            "PlaceOfTheFirst": "test_the_cache_is_the_full_pass",
            "Idle": "test_every_parameter_gets_a_gradient",
            "Drifting": "test_what_is_saved_is_loaded",
        },
        **TINY,
    ),
    *_of(
        "model-family",
        "families",
        {"OtherNorms": "test_logits_are_those_of_transformers"},
        architectures=("LlamaForCausalLM",),
    ),
]
"""Every standard test of every kind is in here at least once."""
