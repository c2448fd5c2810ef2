"""Planted defects of schedules, mixtures and models of several heads."""

# fmt: off
ROWS = (
    ('gradworks/schedules/round_robin.py', 'return [names[g % len(names)]', 'return [names[step % len(names)]',
     'tests/schedules/test_schedules.py::test_a_run_is_the_oracles_and_every_step_of_it_a_pure_function'),
    ('gradworks/schedules/round_robin.py', 'first = step * needs.groups * k', 'first = step * k',
     'tests/schedules/test_schedules.py::test_a_run_is_the_oracles_and_every_step_of_it_a_pure_function'),
    ('gradworks/schedules/proportional.py', '"epoch", epoch, name, i', '"epoch", name, i',
     'tests/schedules/test_schedules.py::test_an_epoch_of_proportional_holds_every_batch_of_every_part_once'),
    ('gradworks/schedules/proportional.py', ' / size for', ' * size for',
     'tests/schedules/test_schedules.py::test_different_tasks_in_proportion_as_far_as_that_can_be'),
    ('gradworks/schedules/__init__.py', 'if needs.tasks == "different" and k > len(tasks):', 'if False:',
     'tests/schedules/test_schedules.py::test_what_an_update_needs_is_kept_or_refused'),
    ('gradworks/schedules/__init__.py', 'needs.tasks == "same" and any(len(set(one)) > 1 for one in groups)', 'False',
     'tests/schedules/test_schedules.py::test_a_schedule_that_breaks_its_promise_is_stopped'),
    ('gradworks/schedules/single.py', 'if len(tasks) > 1 else ""', 'if False else ""',
     'tests/schedules/test_schedules.py::test_what_cannot_be_kept_is_refused_in_words'),
    ('gradworks/data/mixture.py', 'self._seed if alone else', 'self._seed if True else',
     'tests/data/test_mixture.py::test_parts_that_share_their_rows_are_not_read_in_step'),
    ('gradworks/data/mixture.py', 'self._seed if alone else', 'self._seed if False else',
     'tests/data/test_mixture.py::test_one_part_is_the_plain_stream'),
    ('gradworks/data/mixture.py', 'self._batch, seed, start)', 'self._batch, seed)',
     'tests/data/test_mixture.py::test_it_goes_on_anywhere_as_if_it_had_been_read'),
    ('gradworks/data/mixture.py', 'seed + _CLEAN_STREAM, start)', 'seed + _CLEAN_STREAM)',
     'tests/data/test_mixture.py::test_it_goes_on_anywhere_as_if_it_had_been_read'),
    ('gradworks/data/mixture.py', 'if split is not None and split.task != name:', 'if False:',
     'tests/data/test_mixture.py::test_what_cannot_be_drawn_is_refused_before_training'),
)
