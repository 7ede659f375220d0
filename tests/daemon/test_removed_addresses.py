"""An address is vacated when the last worker has left it."""

import pytest

from tftpd.daemon.listen_sockets import DrainTracker

A, B = ("127.0.0.1", 69), ("::1", 69, 0, 0)


@pytest.fixture
def leaving():
    vacated = []
    made = DrainTracker(vacated.append)
    made.vacated = vacated
    made.serve([A, B], range(3))
    return made


def test_the_last_of_them_vacates_it(leaving):
    leaving.serve([B], range(3))
    for worker in (0, 2, 2):
        leaving.left(worker, A)
    assert leaving.vacated == []
    leaving.left(1, A)
    leaving.left(1, A)
    assert leaving.vacated == [A]


def test_what_is_served_is_not_vacated(leaving):
    for worker in range(3):
        leaving.left(worker, A)
    assert leaving.vacated == []


def test_one_who_died_is_nowhere(leaving):
    leaving.serve([], range(3))
    for worker in range(3):
        leaving.died(worker)
    assert sorted(leaving.vacated) == [A, B]


def test_where_no_worker_lives_it_is_vacated_at_once(leaving):
    leaving.serve([B], [])
    assert leaving.vacated == [A]


def test_an_address_that_is_served_again_is_not_vacated(leaving):
    leaving.serve([B], range(3))
    leaving.left(0, A)
    leaving.serve([A, B], range(3))
    leaving.left(1, A)
    leaving.left(2, A)
    assert leaving.vacated == []
