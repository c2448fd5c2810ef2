"""Planted defects of gradworks/store/artifacts that would go unnoticed: damage accepted, wrong values, lost objects."""

# fmt: off
ROWS = (
    ('gradworks/store/artifacts/listing.py', '"missing" if found is None else "damaged" if wrong else "ok"', '"missing" if found is None else "ok"',
     'tests/store/test_artifacts.py::test_ls_says_what_the_store_lacks'),
    ('gradworks/store/artifacts/fast_yaml.py', 'key = event.value, event.implicit, event.tag', 'key = event.value',
     'tests/store/test_artifacts_untrusted.py::test_yaml_is_what_pyyaml_reads'),
    ('gradworks/store/artifacts/store.py', 'if not (isinstance(path, str) and _inside(path)):', 'if not isinstance(path, str):',
     'tests/store/test_artifacts_untrusted.py::test_a_list_of_files_that_leads_elsewhere_is_refused'),
    ('gradworks/store/artifacts/store.py', 'if found != md5.removesuffix(".dir"):', 'if False:',
     'tests/store/test_artifacts.py::test_verify_names_a_planted_corruption_and_a_planted_deletion'),
    ('gradworks/store/artifacts/store.py', 'end = min(self._at + len(buffer), self._length)', 'end = min(self._at + len(buffer), self._length - 1)',
     'tests/store/test_artifacts_untrusted.py::test_previews'),
    ('gradworks/store/artifacts/diff.py', 'words.short(old[key], 10**6) != words.short(new[key], 10**6)', 'old[key] != new[key]',
     'tests/store/test_artifacts_untrusted.py::test_a_parameter_that_becomes_another_type_differs'),
    ('gradworks/cluster/artifacts.py', '        verify.raise_if_none(found)', '        pass',
     'tests/store/test_artifacts_untrusted.py::test_nothing_to_verify_is_no_proof'),
    ('gradworks/store/artifacts/prune.py', 'if run.newest <= bound and name not in alive]', 'if name not in alive]',
     'tests/store/test_artifacts_prune.py::test_one_new_object_keeps_its_run_and_its_code'),
    ('gradworks/store/artifacts/prune.py', 'if run.newest <= bound and name not in alive]', 'if run.newest <= bound]',
     'tests/store/test_artifacts_prune.py::test_a_run_that_goes_on_stays_with_its_code_and_checkpoints'),
)
