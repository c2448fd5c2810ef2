"""Planted defects of what S3 keeps of a run, and of what is known before it starts."""

# fmt: off
ROWS = (
    ('gradworks/store/places.py', 'return self.before(run).get(stage) if body is None else', 'return None if body is None else',
     'tests/pod/test_run.py::test_entries_of_before_the_start_are_found_with_those_of_the_pods'),
    ('gradworks/store/places.py', 'if found["sha256"] != _digest(json.dumps(texts)):', 'if False:',
     'tests/pod/test_run.py::test_entries_of_before_the_start_are_found_with_those_of_the_pods'),
    ('gradworks/store/artifacts/lock.py', 'places.before(run) if name == BEFORE else ', '',
     'tests/store/test_artifacts.py::test_verify_reads_what_gradworks_itself_keeps'),
    ('gradworks/dvc_compat.py', 'config=config(root)', 'config={}',
     'tests/store/test_dvc_keys.py::test_values_are_written_as_the_project_says_and_no_lock_is_read'),
    ('gradworks/dvc_keys.py', '(data.get("wdir") or "", name)', '("", name)',
     'tests/store/test_dvc_keys.py::test_values_are_written_as_the_project_says_and_no_lock_is_read'),
    ('gradworks/store/code.py', '"GIT_ALTERNATE_OBJECT_DIRECTORIES"', '"NO"',
     'tests/store/test_code.py::test_a_run_of_the_code_writes_nothing_twice_and_nothing_of_the_users'),
    ('gradworks/store/storage.py', 'for more in (0, 10_000)}', 'for more in (0,)}',
     'tests/store/test_storage.py::test_a_port_that_is_taken_is_left_alone'),
    ('gradworks/cluster/plan.py', 'certain = sure() if left else', 'certain = early.unchecked() if left else',
     'tests/cluster/test_done_before.py::test_a_mistake_in_the_parameters_is_named_before_a_stage_is_run'),
)
