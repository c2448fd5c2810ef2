"""Planted defects of tasks that read the same rows."""

# fmt: off
KIND, DATA = "gradworks/tasks/kinds/_shared/together.py", "gradworks/data/together.py"
READING = "gradworks/models/_shared/reading.py"
TESTS, STAGES = "tests/tasks/test_together.py::", "tests/components/test_together.py::"
SUM = TESTS + "test_the_gradient_is_that_of_the_sum_of_the_losses_of_passes_of_their_own"
OWN = TESTS + "test_each_task_has_the_outputs_of_a_pass_of_its_own"
ROWS_OF = TESTS + "test_what_is_not_the_same_rows_is_refused_in_words"
ROWS = (
    (READING, '                    one.set_state(state)\n', '                    pass\n', OWN),
    (READING, 'known.part == part and _same(known.reads, reads)', 'False', OWN),
    (READING, 'known.part == part and _same(known.reads, reads)', 'known.part == part', ROWS_OF),
    (DATA, 'len(ids) * mass.double() / mass.double().sum().clamp_min(1)', 'mass.double()', SUM),
    (DATA, 'one[rows] for task', 'one for task', TESTS + "test_micro_batches_are_the_batch"),
    (DATA, '    if rows[0] != rows[1]:\n', '    if False:\n', ROWS_OF),
    (DATA, 'if list(_tokens(a)) != list(_tokens(b)):', 'if False:', ROWS_OF),
    (DATA, '!= list(map(_row, ids)):', '!= [_row(one.ids[i]) for i in rows]:', ROWS_OF),
    (KIND, '(weight * batch.labels.factors[task])', '(batch.labels.factors[task])', SUM),
    (KIND, 'weight * kind.divergence(a, b)', 'kind.divergence(a, b)',
     TESTS + "test_every_entry_works_on_the_summed_loss_or_is_refused"),
    (KIND, ' and _of_mass_1(one) for one', ' for one', TESTS + "test_it_offers_what_all_its_tasks_offer"),
    ("gradworks/data/mixture.py", 'for name, part in self.streams.items() for key', 'for name, part in self.parts.items() for key',
     TESTS + "test_killed_and_resumed_it_ends_bit_identical_and_a_row_counts_once"),
    ("components/fetch.py", 'source.ids or args.source', 'args.source',
     STAGES + "test_both_labels_are_learned_from_half_the_steps_and_every_row_counts_once"),
    ("gradworks/base/together.py", 'key=lambda one: one[0] != main', 'key=lambda one: one[0] == main',
     "tests/base/test_cells_mixtures.py::test_tasks_read_together_are_one_part_to_the_schedule_and_change_no_name"),
    ("gradworks/base/together.py", 'of.get(part, part): list(', 'part: list(',
     "tests/base/test_cells_mixtures.py::test_tasks_read_together_are_one_part_to_the_schedule_and_change_no_name"),
    (KIND, 'one["drawn"] != asked[0]["drawn"] and not', 'False and not',
     STAGES + "test_what_cannot_be_read_together_is_refused_by_the_check_of_the_file"),
)
