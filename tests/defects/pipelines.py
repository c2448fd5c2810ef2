"""dvc.yaml from its template, the axis `mixture`, files of one's own."""

ROWS = (
    (
        "gradworks/base/grid.py",
        'if kind != "mixture" or len(mixed) > 1}',
        "}",
        "tests/base/test_cells_mixtures.py::test_one_mixture_changes_no_name_and_several_are_an_axis",
    ),
    (
        "gradworks/base/grid.py",
        'other and (other, cell["encoder"], cell.get("mixture")) not in same',
        "False",
        "tests/base/test_cells.py::test_what_does_not_fit_is_refused",
    ),
    (
        "gradworks/base/grid.py",
        'measured if "measure" in values else {}',
        "measured",
        "tests/base/test_cells.py::test_only_the_stages_that_a_benchmark_has_are_defined",
    ),
    (
        "gradworks/base/cells.py",
        '"own": given("tasks")',
        '"own": ""',
        "tests/base/test_cells.py::test_a_stage_depends_on_its_mixture_its_schedule_and_tasks_of_ones_own",
    ),
    (
        "gradworks/base/cells.py",
        '"${item.mixture_schedule}" if mixed else "single"',
        '"single"',
        "tests/base/test_cells.py::test_a_stage_depends_on_its_mixture_its_schedule_and_tasks_of_ones_own",
    ),
    (
        "gradworks/data/splits.py",
        "round(self.share * rows)",
        "int(self.share * rows) - 1",
        "tests/data/test_splits.py::test_a_share_is_of_all_that_a_split_of_a_source_has",
    ),
    (
        "gradworks/data/splits.py",
        "size = take.count(len({units[i] for i in matching}))",
        "size = take.count(table.num_rows)",
        "tests/data/test_splits.py::test_a_share_is_of_all_that_a_split_of_a_source_has",
    ),
    (
        "gradworks/data/look.py",
        "values = {form: named[form] for form in order} if given else {}",
        "values = {}",
        "tests/test_new.py::test_labels_are_read_as_they_were_counted",
    ),
    (
        "gradworks/data/delimited.py",
        'return ";" if _count(first, ",") < 2 <= _count(first, ";") else ","',
        'return ","',
        "tests/test_new.py::test_semicolons_between_fields",
    ),
    (
        "gradworks/tasks/kinds/regression.py",
        "(batch.labels.to(value.dtype) - self.center) / self.spread",
        "batch.labels.to(value.dtype)",
        "tests/test_new.py::test_numbers_are_learned_in_units_of_their_spread",
    ),
    (
        "gradworks/tasks/kinds/regression.py",
        "super().answers((self._values(outputs),)) * self.spread + self.center",
        "super().answers((self._values(outputs),))",
        "tests/test_new.py::test_numbers_are_learned_in_units_of_their_spread",
    ),
    (
        "gradworks/data/look_texts.py",
        "len(values) >= _FILLED * rows and ",
        "",
        "tests/test_new.py::test_a_second_text_that_most_rows_lack_is_not_taken",
    ),
    (
        "gradworks/data/look_texts.py",
        "[name for name in could if name not in made]",
        "[]",
        "tests/test_new.py::test_texts_that_are_not_taken_are_named",
    ),
    (
        "gradworks/new.py",
        "if params.parent.exists():",
        "if False:",
        "tests/test_new.py::test_a_choice_is_taken_and_nothing_is_overwritten",
    ),
    (
        "gradworks/new.py",
        'if role in ("dev", "test") and unlabelled:',
        "if False:",
        "tests/test_new.py::test_a_folder_of_splits",
    ),
    (
        "gradworks/report/recorded.py",
        "for key in _NO_SPLIT if taken else ():",
        "for key in ():",
        "tests/report/test_recorded.py::test_what_differs_is_named",
    ),
    (
        "gradworks/report/read.py",
        'if len({cell.get("mixture") for cell in cells.values()}) < 2:',
        "if True:",
        "tests/report/test_mixtures.py::test_no_table_mixes_two_mixtures",
    ),
    (
        "gradworks/parameters.py",
        "    _mixtures(params, values, sources)\n",
        "",
        "tests/test_parameters.py::test_a_mixture_that_does_not_fit_is_refused",
    ),
)
