import tests.hypothesis_profile  # noqa: F401
