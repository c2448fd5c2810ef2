"""Planted defects of kinds whose label is a text that a model writes, their models and metrics."""

_KIND = "gradworks/tasks/kinds/_shared/written.py"
_TEST, _MODEL = "tests/tasks/test_written.py", "tests/models/test_generation.py"
_METRIC, _METRICS = "gradworks/metrics/generation.py", "tests/test_generation_metrics.py"
_LAYERS = "gradworks/methods/weightings/_shared/layers.py"
_NOISE, _NOISES = "gradworks/data/corruptions.py", "tests/data/test_corruptions.py"

# fmt: off
ROWS = (
    (_KIND, 'return labels, (labels != PADDING).sum(1).float()', 'return labels, (labels != PADDING).any(1).float()',
     f'{_TEST}::test_the_mean_by_mass_is_transformers_loss_and_so_is_its_gradient'),
    (_KIND, 'return each.sum(1) / batch.mass.to(each.dtype)', 'return each.mean(1)',
     f'{_TEST}::test_an_example_alone_has_the_loss_that_it_has_among_others'),
    (_KIND, 'return logits.masked_fill((labels == PADDING)[..., None], 0.0)', 'return logits',
     f'{_TEST}::test_rows_without_a_label_are_zero_and_embeddings_are_those_of_the_tokens'),
    (_KIND, '(p[0].detach() != 0).any(-1).sum(1).clamp_min(1)', 'p[0].shape[1]',
     f'{_TEST}::test_divergence_and_smoothing_by_hand'),
    (_KIND, 'row[start - first : start - first + len(ids)] =', 'row[: len(ids)] =',
     f'{_TEST}::test_the_mean_by_mass_is_transformers_loss_and_so_is_its_gradient'),
    (_KIND, '(losses * batch.mass).cpu()', 'losses.cpu()',
     f'{_MODEL}::test_what_is_written_is_the_likeliest_token_after_the_other'),
    (_KIND, 'not str(raw).strip()', 'raw == ""', 'tests/data/test_files.py::test_packed_files_are_read_as_what_they_hold'),
    (_KIND, 'sum(-np.log(counts[t] / total) for t in one)', 'sum(-np.log(1 / len(counts)) for t in one)',
     f'{_TEST}::test_constants_are_the_empty_text_and_the_most_frequent_with_the_frequencies_of_tokens'),
    ('gradworks/models/causal.py', 'logits if self._keeps or not keep else logits[:, -keep:]', 'logits',
     f'{_MODEL}::test_a_model_that_gives_all_logits_is_cut_to_the_last'),
    ('gradworks/models/causal.py', 'place = torch.arange(longest, device=ids.device) - (longest - prompt)[:, None]', 'place = torch.arange(longest, device=ids.device).expand(len(ids), -1)',
     f'{_MODEL}::test_what_is_written_is_the_likeliest_token_after_the_other'),
    ('gradworks/models/causal.py', 'ids[-room:]', 'ids[:room]', f'{_MODEL}::test_prompts_are_cut_at_their_start_and_responses_at_their_end'),
    ('gradworks/models/seq2seq.py', 'return self.decode(made[:, 1:])', 'return self.decode(made[:, 2:])',
     f'{_MODEL}::test_what_is_written_is_the_likeliest_token_after_the_other'),
    ('gradworks/trace.py', 'share = weights / mass / weights.sum() * mass.sum()', 'share = weights / weights.sum() * len(weights)',
     'tests/test_trace.py::test_a_weight_is_relative_to_what_the_labels_of_an_example_count_in_plain_training'),
    ('components/measure.py', 'loss = (part.mass * losses).sum() / (mass * len(drawn))', 'loss = losses.mean() / (len(parts) * len(drawn))',
     f'{_TEST}::test_plain_training_that_costs_are_compared_with_weighs_by_tokens_too'),
    (_LAYERS, 'return one - zero', 'return one', f'{_TEST}::test_the_rule_of_a_norm_holds_where_its_weight_is_added_to_one'),
    (_LAYERS, 'return super().inner(use, x, g, weight.t())', 'return super().inner(use, x, g, weight)',
     f'{_TEST}::test_reweight_scores_and_weighs_as_a_loop_over_examples'),
    (_METRIC, 'log, note = nll.sum() / tokens.sum(),', 'log, note = (nll / tokens).mean(),',
     f'{_METRICS}::test_perplexity_is_that_of_all_tokens_and_exact_match_leaves_blanks_out'),
    (_METRIC, '(nll - nll.sum() / tokens.sum() * tokens) / tokens.mean()', '(nll - nll.mean()) / tokens.mean()',
     f'{_METRICS}::test_the_interval_of_a_perplexity_holds_the_true_one'),
    (_METRIC, 'alike = share * (1 - share) / variance if variance else n', 'alike = 9 * n',
     f'{_METRICS}::test_the_interval_of_a_mean_of_f1_holds_the_true_one'),
    (_METRIC, 'made = _library()(text, reference, rouge_keys=metric)', 'made = _library()(reference[:9], text, rouge_keys=metric)',
     f'{_METRICS}::test_rouge_by_its_definition_on_drawn_texts'),
    (_NOISE, 'labels[order[(n + most) % len(order)]]', 'labels[order[(n + 1) % len(order)]]',
     f'{_NOISES}::test_swapped_labels_are_those_of_other_rows_and_differ'),
    (_NOISE, '        if made == words:\n            made[0], made[first] = made[first], made[0]\n', '',
     f'{_NOISES}::test_shuffled_labels_have_the_same_words_in_another_order'),
    ('gradworks/data/lines.py', 'raise InputError(f"{self.path}: damaged after line {number}: {error}") from None', 'return',
     'tests/data/test_files.py::test_packed_files_are_read_as_what_they_hold'),
    ('gradworks/models/causal.py', '(i, i if written else PADDING) for', '(i, i) for',
     'tests/tasks/test_turns.py::test_the_labels_are_all_turns_of_the_assistant_and_nothing_else'),
    ('gradworks/models/causal.py', 'if place and label != PADDING', 'if label != PADDING',
     'tests/tasks/test_turns.py::test_a_conversation_that_is_too_long_loses_its_start_and_the_last_turn_its_end'),
)
