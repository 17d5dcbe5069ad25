from tests.unit.doctor.conftest import config_of  # noqa: F401  a fixture
