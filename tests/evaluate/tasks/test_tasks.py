"""The registry of evaluation tasks."""

import pytest

from zett.errors import UserError
from zett.evaluate.tasks import TASKS, make_task


@pytest.mark.parametrize("name", TASKS)
def test_a_task_knows_its_name_and_unit(name):
    task = make_task(name, dtype="float32", batch_size=4)
    assert task.name == name and task.unit and task.lower_is_better in (True, False)


def test_a_task_that_is_not_there():
    with pytest.raises(UserError, match=r"no evaluation task 'bits_per_bite'; did you mean bits_per_byte\?"):
        make_task("bits_per_bite")
