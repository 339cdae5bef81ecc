"""A vocabulary of each kind that there is."""

import pytest
from vocabularies import NO_FALLBACK, OTHERS, vocabulary

from zett.vocab.train import KINDS


@pytest.fixture(scope="session", params=[*KINDS, NO_FALLBACK, *OTHERS])
def named(request):
    return request.param, vocabulary(request.param)
