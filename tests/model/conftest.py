"""What the tests of conversion share; Keras is imported only where a test asks for it."""

import pytest

import tests.hypothesis_profile  # noqa: F401


@pytest.fixture(scope="module")
def models():
    from tests.model import models

    return models


@pytest.fixture(scope="module")
def layers():
    from keras import layers

    return layers
