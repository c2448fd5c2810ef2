"""Planted defects of texts with part-of-speech tags."""

# fmt: off
ROWS = (
    ('gradworks/data/spacy_tagger.py', 'not asked.intersection(about.assigns)', 'True',
     'tests/data/test_spacy_tagger.py::test_the_parser_runs_where_the_rules_for_pos_ask_it_and_not_else'),
    ('gradworks/data/spacy_tagger.py', 'about.factory in _UNUSED', 'one in _UNUSED',
     'tests/data/test_spacy_tagger.py::test_the_parser_runs_where_the_rules_for_pos_ask_it_and_not_else'),
    ('gradworks/data/spacy_tagger.py', 'if {"POS", "TAG"} & set(rule["attrs"])', 'if True',
     'tests/data/test_spacy_tagger.py::test_the_parser_runs_where_the_rules_for_pos_ask_it_and_not_else'),
    ('gradworks/data/spacy_tagger.py', 'for one in nlp.pipe_names} - _VECTORS:', 'for one in nlp.pipe_names}:',
     'tests/data/test_spacy_tagger.py::test_what_is_no_tagger_is_refused_in_words'),
    ('gradworks/data/spacy_tagger.py', 'token.pos_ or token.tag_  #', 'token.pos_  #',
     'tests/data/test_spacy_tagger.py::test_tags_without_pos_are_read_where_they_are_known'),
    ('gradworks/data/spacy_tagger.py', 'for token in doc if not token.is_space', 'for token in doc',
     'tests/data/test_spacy_tagger.py::test_a_folder_and_a_package_give_the_twelve_tags_of_their_words'),
    ('gradworks/data/spacy_tagger.py', 'yield fault or [', 'yield [',
     'tests/data/test_spacy_tagger.py::test_texts_that_spacy_does_not_tag_are_said_and_the_others_read'),
    ('gradworks/data/taggers.py', 'not any(map(str.isalnum, penn))', 'True',
     'tests/data/test_spacy_tagger.py::test_tags_without_pos_are_read_where_they_are_known'),
    ('components/fetch.py', '        read.bad += bad\n', '',
     'tests/data/test_spacy_tagger.py::test_a_source_is_tagged_by_a_folder_which_its_stage_depends_on'),
    ('gradworks/base/sources.py', 'if any(folders.values()):', 'if False:',
     'tests/data/test_spacy_tagger.py::test_a_source_is_tagged_by_a_folder_which_its_stage_depends_on'),
    ('gradworks/base/sources.py', 'r"\\w*", name)', 'r".*", name)',
     'tests/data/test_spacy_tagger.py::test_a_source_is_tagged_by_a_folder_which_its_stage_depends_on'),
    ('components/fetch.py', 're.fullmatch("textblob|spacy:.+", self.tags)', 'self.tags',
     'tests/test_parameters.py::test_a_mistake_is_said_at_once'),
)
