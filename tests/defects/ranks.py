"""Planted defects of processes that train together, and of the cell that they train."""

# fmt: off
_TWO = 'tests/components/test_train_ranks.py::'
_SAME = _TWO + 'test_two_processes_are_two_micro_batches_byte_for_byte'
_OOM = _TWO + 'test_out_of_memory_on_one_rank_is_the_state_of_all_and_written_once'
_GPUS = 'tests/base/test_cells.py::test_gpus_that_train_together_are_a_parameter_and_other_stages_reserve_one'
ROWS = (
    ('gradworks/methods/weightings/reweight.py', '        visit.reduce([several])\n', '',
     'tests/methods/test_ranks.py::test_two_gloo_ranks_are_two_micro_batches_bit_for_bit[uneven]'),
    ('gradworks/methods/weightings/reweight.py', '        if pairs and all(_are_classes(', '        if all(_are_classes(',
     'tests/methods/test_laws.py::test_hold_law_reptile_weighs_at_the_moved_parameters'),
    ('gradworks/base/grid.py', '"" if schedule == ALWAYS_PRESENT else f" --', 'f" --',
     'tests/base/test_cells.py::test_names_paths_and_entries'),
    ('gradworks/distributed.py', '            if local >= there:\n', '            if False:\n',
     'tests/test_distributed.py::test_a_rank_without_a_gpu_of_its_own_is_refused'),
    ('gradworks/distributed.py', '    if there < count and (', '    if False and (',
     'tests/test_distributed.py::test_more_processes_than_gpus_are_refused_before_any_is_started'),
    ('gradworks/distributed.py', 'environment.get(ASKED) or (str(count)', '(str(count)',
     'tests/test_distributed.py::test_who_starts_how_many_processes'),
    ('gradworks/distributed.py', 'if device == "cuda" else "1")', 'if True else "1")',
     'tests/test_distributed.py::test_who_starts_how_many_processes'),
    ('gradworks/distributed.py', '            self.store.set("ended", reason)\n', '            pass\n', _OOM),
    ('components/train.py', '    if world.first:\n        _write(', '    if True:\n        _write(', _OOM),
    ('gradworks/methods/_shared/ranks.py', 'parts[self.rank :: self.size]', 'parts[::-1][self.rank :: self.size]', _SAME + '[supervised-uniform-erm-None]'),
    ('gradworks/methods/_shared/ranks.py', 'all(len(drawn) % self.size == 0 for', 'all(True for', _SAME + '[supervised-uniform-erm-both]'),
    ('gradworks/methods/_shared/method.py', 'if getattr(self.update, "exact", False) or not', 'if not', _SAME + '[dotprod-exact-None]'),
    ('gradworks/methods/_shared/passes.py', 'with here.untouched():', 'if True:', _SAME + '[smart-reweight-reptile-both]'),
    ('gradworks/methods/_shared/passes.py', '            yield here\n        meter.thirds = before\n', '            yield here\n', _SAME + '[supervised-reweight-erm-both]'),
    ('gradworks/methods/_shared/passes.py', '        if repeats:', '        if False:', _SAME + '[supervised-reweight-erm-None]'),
    ('gradworks/methods/weightings/_shared/agreement.py', '    if besides:\n        here.count(before - here.count(0))\n    try:\n', '    try:\n', _SAME + '[supervised-reweight-erm-both]'),
    ('gradworks/loop.py', '    if parts % world.size:\n', '    if False:\n',
     _TWO + 'test_micro_batches_that_do_not_divide_are_refused_in_words_on_all_ranks'),
    ('gradworks/methods/_shared/checks.py', '    if sharded and isinstance(', '    if False and isinstance(',
     'tests/methods/test_ranks.py::test_a_sharded_module_is_refused'),
    ('gradworks/base/cells.py', '"gpus": ", gpu.count" * together', '"gpus": ", gpu.count" * False', _GPUS),
    ('gradworks/base/cells.py', '--processes ${gpu.count}" * together', '--processes ${gpu.count}" * False', _GPUS),
    ('gradworks/base/cells.py', '"one_gpu": "1" if together', '"one_gpu": "1" if False', _GPUS),
    ('gradworks/cell.py', 'each[name] = -(-rows // (self', 'each[name] = (rows // (self',
     'tests/test_cell.py::test_batches_are_epochs_of_whole_batches_times_the_ratio'),
    ('gradworks/cell.py', 'in self.mixed.streams.items():\n            rows', 'in [*self.mixed.streams.items()][:1]:\n            rows',
     'tests/test_cell.py::test_an_epoch_of_a_mixture_is_one_of_each_part'),
    ('gradworks/cell.py', '    if model not in train.learning_rate:\n', '    if False:\n',
     'tests/test_cell.py::test_a_learning_rate_is_needed_for_the_kind_of_model'),
    ('gradworks/cell.py', 'or set(found) != {"ratio"}:', 'or False:',
     'tests/test_cell.py::test_a_method_that_takes_as_long_as_another_needs_its_schedule'),
)
