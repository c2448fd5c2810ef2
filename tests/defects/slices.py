"""Planted defects of slices and weak labels."""

# fmt: off
SLICED, LABELS = "gradworks/tasks/kinds/_shared/sliced.py", "gradworks/data/labelling_model.py"
BY_HAND = "tests/tasks/test_sliced.py::test_a_slices_loss_is_the_mean_over_its_members_and_0_without_any"
RECOVERED = "tests/data/test_labelling.py::test_planted_accuracies_are_recovered"
ROWS = (
    (SLICED, '* len(inside) / inside.sum(0).clamp_min(1)', '* 1.0', BY_HAND),
    (SLICED, 'of = self.weight * inside', 'of = inside', BY_HAND),
    (SLICED, 'torch.cat([torch.ones(len(inside), 1), of], 1)', 'torch.cat([1 - of[:, :1], of], 1)', BY_HAND),
    (SLICED, 'z[:, 1:] - z[:, :1]', 'z[:, 1:]', "tests/tasks/test_sliced.py::test_combined_by_hand"),
    (SLICED, 'first = ~inside.any(1) if', 'first = ~inside.all(1) if', "tests/tasks/test_sliced.py::test_combined_by_hand"),
    (SLICED, 'self.kind.divergence(self._first(p), self._first(q))', 'self.kind.divergence(p, q)',
     "tests/tasks/test_sliced.py::test_smoothness_is_that_of_the_tasks_head"),
    ("gradworks/models/_shared/heads.py", 'first = getattr(old, name)[:size]', 'first = torch.zeros_like(getattr(old, name)[:size])',
     "tests/models/test_last_layers.py::test_heads_of_slices_are_copies_of_the_tasks"),
    ("gradworks/data/functions.py", 'if name not in ("label", "distribution")', 'if name != "distribution"',
     "tests/data/test_slices.py::test_a_file_of_functions"),
    ("gradworks/data/slices.py", 'NEEDED = ("train", "test")', 'NEEDED = ("test",)',
     "tests/data/test_slices.py::test_a_slice_needs_members_in_train_and_in_test"),
    (LABELS, 'np.where(votes < 0, classes, votes)', 'np.where(votes < 0, 0, votes)', RECOVERED),
    (LABELS, 'z = np.log(prior) +', 'z = 0 * np.log(prior) +', RECOVERED),
    (LABELS, 'if right <= chance:', 'if False:', "tests/data/test_labelling.py::test_functions_that_are_wrong_together_are_refused"),
    ("gradworks/data/labelling.py", '(others != cast[:, [j]])', '(others == cast[:, [j]])',
     "tests/data/test_labelling.py::test_votes_and_what_is_said_of_them"),
    ("gradworks/tasks/kinds/classification.py", 'rows[i] = torch.tensor(one)', 'rows[i] = torch.tensor(one).round()',
     "tests/tasks/test_soft_labels.py::test_rows_without_a_distribution_are_sure"),
    ("gradworks/report/slices.py", 'stdtrit(n - 1, 0.975)', 'stdtrit(n - 1, 0.95)',
     "tests/report/test_slices.py::test_one_seed_has_an_interval_over_test_examples"),
    ("gradworks/report/slices.py", 'statistics.holm([gain["p"] for gain in gains])', '[gain["p"] for gain in gains]',
     "tests/report/test_slices.py::test_one_seed_has_an_interval_over_test_examples"),
)
