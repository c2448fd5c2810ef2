"""The kind image: pictures decoded, kept in a column, read from it without a copy; rows that do not fit are refused."""

import numpy as np
import pyarrow as pa
import pytest

from gradworks import tasks
from gradworks.base.errors import InputError
from gradworks.tasks.kinds._shared import pixels
from tests.kinds import kind

IMAGES = np.arange(3 * 28 * 28, dtype=np.uint32).reshape(3, 28, 28).astype(np.uint8)


def test_an_array_of_the_right_shape_is_not_copied_and_others_are_resized():
    assert np.shares_memory(pixels.decode(IMAGES[0], (28, 28, 1)), IMAGES)
    white = np.full((105, 105), 255, np.uint8)
    small = pixels.decode(white, (28, 20, 3))
    assert small.shape == (28, 20, 3) and small.dtype == np.uint8 and (small == 255).all()
    with pytest.raises(ValueError, match="no picture"):
        pixels.decode(3, (28, 28, 1))


def test_pictures_are_read_in_the_memory_of_the_table():
    made = kind("mnist")
    parts = [
        pa.table({"image": made.column([made.take(one, "image") for one in some])}) for some in np.split(IMAGES, 3)
    ]
    table = pa.concat_tables([*parts, parts[0], pa.concat_tables(parts).combine_chunks().slice(1)])
    found = pixels.Pictures(table["image"], (28, 28, 1))
    expected = IMAGES[[0, 1, 2, 0, 1, 2]]
    assert len(found) == 6
    for i in (*range(6), -1, -6):
        assert np.array_equal(found[i]["pixels"][..., 0], expected[i])
    memory = np.frombuffer(table["image"].chunk(0).buffers()[1], np.uint8)
    assert np.shares_memory(found[0]["pixels"], memory)
    for beyond in (6, -7):
        with pytest.raises(IndexError):
            found[beyond]
    with pytest.raises(ValueError, match="expected pictures of 768 bytes"):
        pixels.Pictures(table["image"], (16, 16, 3))


ROW = {"kind": "image", "texts": ["picture"], "classes": ["cat", "dog"], "shape": [8, 6, 3]}


def test_a_task_of_ones_own():
    made = tasks.kind(tasks.own("pets", ROW, "params.yaml: tasks.pets"))
    assert (made.shape, made.size, made.reads, made.spec.metrics) == ((8, 6, 3), 2, "pictures", ("accuracy",))
    one = made.take(np.zeros((8, 6, 3), np.uint8), "picture")
    assert made.column([one, one]).type == pa.binary(144)


@pytest.mark.parametrize(
    "change, said",
    [
        ({"shape": [8, 6]}, "shape"),
        ({"shape": [8, 6, 2]}, r"shape: found \[8, 6, 2\]\nexpected \[height, width, channels\], 1 or 3 channels"),
        ({"shape": [0, 6, 1]}, "shape"),
        ({"shape": None}, "shape"),
        ({"texts": ["left", "right"]}, r"texts: found \['left', 'right'\]\nexpected one column, of pictures"),
        ({"classes": ["cat"]}, "classes: found"),
    ],
    ids=str,
)
def test_rows_that_do_not_fit(change, said):
    row = {key: value for key, value in (ROW | change).items() if value is not None}
    with pytest.raises(InputError, match=said) as error:
        tasks.own("pets", row, "params.yaml: tasks.pets")
    assert str(error.value).startswith("params.yaml: tasks.pets") and len(str(error.value).splitlines()) <= 3


def test_pictures_of_another_shape_than_the_encoder_reads():
    made = kind("mnist")

    class Model:
        shape = (32, 32, 1)

    table = pa.table({"id": ["a"], "image": made.column([IMAGES[0][..., None]]), "label": ["4"]})
    with pytest.raises(InputError, match=r"f: found pictures of \[28, 28, 1\]\nexpected \[32, 32, 1\]"):
        made.encode(table, Model, 0, "f")
    Model.shape = (28, 28, 1)
    with pytest.raises(InputError, match="f: found a column of string, expected pictures of 784 bytes"):
        made.encode(table.set_column(1, "image", pa.array(["no"])), Model, 0, "f")
    found, labels = made.encode(table, Model, 0, "f")
    assert np.array_equal(found[0]["pixels"][..., 0], IMAGES[0]) and labels.tolist() == [4]
